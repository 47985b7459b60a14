"""The training loop. It knows streams, a loss and a checkpoint, and no paper."""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from farout.data.streams import stable_seed
from farout.engine.checkpoint import load_state, save_state
from farout.engine.progress import Bar
from farout.engine.schedules import Course
from farout.engine.survival import Diverged, Restart, Survival
from farout.errors import FaroutError
from farout.files import write_atomically
from farout.methods import Batch, Method

Batches = Callable[[int], Mapping[str, Batch]]
Training = Callable[[], Iterable[Batch]]
Log = Callable[[int, Mapping[str, float]], None]
Notify = Callable[[Restart], None]
Show = Callable[[int, Mapping[str, Tensor]], None]
Algorithm = Literal["sgd", "adam"]


EPOCHS_APART = 1_000_000  # of the batches of one restart from those of the next


@dataclass(frozen=True)
class Optimisation:
    """SGD with Nesterov momentum, or Adam with betas (momentum, 0.999); a cosine per update unless `course` says other.

    Weight decay is on every parameter that requires gradients; frozen ones stay as they are to the bit.
    """

    lr: float
    lr_end: float = 1e-6
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    course: Course = field(default_factory=Course)
    algorithm: Algorithm = "sgd"

    def rate(self, update: int, total: int, steps_per_epoch: int) -> float:
        """Learning rate of the 0-based `update` of `total`."""
        return self.course.rate(update, total, steps_per_epoch, self.lr, self.lr_end)

    def optimizer(self, model: nn.Module, method: Method) -> torch.optim.Optimizer:
        parameters = [part for part in (*model.parameters(), *method.parameters()) if part.requires_grad]
        if self.algorithm == "adam":
            return torch.optim.Adam(parameters, self.lr, (self.momentum, 0.999), weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


@dataclass(frozen=True)
class Checkpointing:
    """Where and how often the full state is written, and when to stop for the day.

    Args:
        path: the state file; a readable one is resumed from.
        minutes, steps: write after this much work since the last (None: not by this measure).
        deadline: `time.monotonic()` after which the state is written and training pauses.
        tag: what the state belongs to; a state with another tag is refused.
    """

    path: Path | None = None
    minutes: float | None = 2.0
    steps: int | None = None
    deadline: float | None = None
    tag: str = ""


@dataclass(frozen=True)
class Audience:
    """Who hears of training while it runs; nothing that they do reaches it.

    Args:
        title: of the progress bar.
        log: gets the averaged losses, the method's readings, the rate and the speed, every `log_every` updates and
            after the last.
        show: gets the method's pictures as often.
        notify: gets every restart.
    """

    title: str = "training"
    log: Log | None = None
    log_every: int = 50
    show: Show | None = None
    notify: Notify | None = None


@dataclass(frozen=True)
class FitResult:
    """How far training came, in updates, and the seconds it took over all sessions."""

    step: int
    finished: bool
    seconds: float
    losses: dict[str, float]
    restarts: tuple[Restart, ...] = ()


class SmoothedLosses:
    """Exponential averages of the loss parts, kept on the device: 0.8 old + 0.2 new, from 0 at every epoch.

    This is the figure that the official codes log as training loss.
    """

    def __init__(self, values: Mapping[str, Tensor] | None = None) -> None:
        self.values: dict[str, Tensor] = dict(values or {})

    def update(self, losses: Mapping[str, Tensor]) -> None:
        for name, loss in losses.items():
            new = loss.detach()
            self.values[name] = 0.8 * self.values.get(name, torch.zeros_like(new)) + 0.2 * new

    def read(self) -> dict[str, float]:
        """Copy to the host: the only synchronisation of the loop."""
        if not self.values:
            return {}
        numbers = torch.stack([value.double() for value in self.values.values()]).tolist()
        return dict(zip(self.values, numbers, strict=True))


def fit(
    model: nn.Module,
    method: Method,
    batches: Batches,
    optimisation: Optimisation,
    total_steps: int,
    *,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    checkpointing: Checkpointing | None = None,
    training: Training | None = None,
    survival: Survival | None = None,
    audience: Audience | None = None,
) -> FitResult:
    """Train in place for `total_steps` updates, resuming from the checkpoint if there is one.

    `training` gives every labelled training image once, for methods that want to see them before the first step.

    Randomness is a function of (seed, step, restarts): `batches` draws from it by contract, and the global generator
    (dropout) is reseeded every step. So a resumed run needs no generator state, and equals an uninterrupted one.

    Where `survival` grants restarts, training that diverges goes back to the last checkpoint.

    Raises:
        FaroutError: training diverged once too often, or the checkpoint belongs to something else.
    """
    epoch = steps_per_epoch or total_steps
    loop = Loop(model, method, optimisation, total_steps, checkpointing or Checkpointing(), epoch, survival)
    audience = audience or Audience()
    model.train()
    method.train()
    if not loop.resume():
        method.prepare(model, batches(0), training() if training else ())
        if loop.survival.max_restarts:
            loop.save()
    # An interrupt (Ctrl-C) saves nothing: it may fall amid an update, and half an update is no state to resume from.
    with Bar(audience.title, total_steps, loop.step) as bar:
        while loop.step < total_steps and not loop.out_of_time():
            try:
                loop.advance(batches, seed)
                if loop.step % audience.log_every == 0 or loop.step == total_steps:
                    _report(loop, bar, audience)
                loop.save_when_due()
            except Diverged as problem:
                restart = loop.go_back(problem)
                if audience.notify is not None:
                    audience.notify(restart)
            bar.at(loop.step)
    finished = loop.step >= total_steps
    if not finished:
        loop.leave()
    return FitResult(loop.step, finished, loop.seconds(), loop.smoothed.read(), tuple(loop.restarts))


class Loop:
    """The mutable part of `fit`: networks, optimiser, position, and the checkpoint that holds them all."""

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        optimisation: Optimisation,
        total: int,
        checkpointing: Checkpointing,
        steps_per_epoch: int | None = None,
        survival: Survival | None = None,
    ) -> None:
        self.model, self.method, self.optimisation = model, method, optimisation
        self.total, self.steps_per_epoch = total, steps_per_epoch or total
        self.optimizer = optimisation.optimizer(model, method)
        self.checkpointing = checkpointing
        self.step, self.images = 0, 0
        self.started, self.earlier = time.monotonic(), 0.0
        self.saved_at, self.saved_step = self.started, 0
        self.latest = torch.zeros(())
        self.smoothed = SmoothedLosses()
        self.survival = survival or Survival()
        self.restarts: list[Restart] = []
        self.saved_since_restart = True

    def advance(self, batches: Batches, seed: int) -> None:
        """One update, and its losses into the averages, which begin anew with every epoch; the last is checked."""
        if self.step % self.steps_per_epoch == 0:
            self.smoothed = SmoothedLosses()
        self.smoothed.update(self.update(batches, seed))
        if self.step == self.total:
            self.require_finite()

    def update(self, batches: Batches, seed: int) -> dict[str, Tensor]:
        """One optimiser update; returns the loss parts, still on the device."""
        again = ("restart", len(self.restarts)) if self.restarts else ()
        torch.manual_seed(stable_seed(seed, "step", self.step, *again))
        # After a restart the batches of some far epoch, at the same place of it: same lengths, other images.
        streams = batches(self.step + len(self.restarts) * EPOCHS_APART * self.steps_per_epoch)
        self.images += sum(len(batch.images) for batch in streams.values())
        losses = self.method.loss(self.model, streams)
        if self.survival.watches:
            self.survival.judge(float(losses["total"].detach()), self.step)
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        self.optimizer.step()
        self.step += 1
        self.latest = losses["total"].detach()
        return losses

    def rate(self, update: int) -> float:
        """Learning rate of a 0-based update."""
        course = self.optimisation.rate(update, self.total, self.steps_per_epoch)
        return course * self.survival.lr_factor ** len(self.restarts)

    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.started

    def out_of_time(self) -> bool:
        deadline = self.checkpointing.deadline
        return deadline is not None and time.monotonic() >= deadline

    def save_when_due(self) -> None:
        rule = self.checkpointing
        by_time = rule.minutes is not None and time.monotonic() - self.saved_at >= 60 * rule.minutes
        by_steps = rule.steps is not None and self.step - self.saved_step >= rule.steps
        if (by_time or by_steps) and self.step < self.total:
            self.save()

    def save(self) -> None:
        path = self.checkpointing.path
        if path is None:
            return
        self.require_finite()
        if self.survival.max_restarts and path.exists():
            earlier(path).unlink(missing_ok=True)
            keep(path, earlier(path))
        self.saved_since_restart = True
        self._write(path)

    def leave(self) -> None:
        """Save at the end of the day, whatever the last updates have come to."""
        try:
            self.save()
        except Diverged as problem:
            self.go_back(problem)

    def _write(self, path: Path) -> None:
        state = {
            "tag": self.checkpointing.tag,
            "step": self.step,
            "total": self.total,
            "seconds": self.seconds(),
            "smoothed": self.smoothed.values,
            "model": self.model.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "restarts": [asdict(restart) for restart in self.restarts],
        }
        save_state(path, state)
        self.saved_at, self.saved_step = time.monotonic(), self.step

    def require_finite(self) -> None:
        """Raise rather than keep numbers that no further training can mend."""
        if not bool(self.latest.isfinite()):
            raise self.diverged("the loss")
        for part in (self.model, self.method):
            for name, value in part.state_dict().items():
                if value.is_floating_point() and not bool(value.isfinite().all()):
                    raise self.diverged(name)

    def diverged(self, what: str) -> Diverged:
        return Diverged(f"training diverged: {what} is not finite at step {self.step}")

    def go_back(self, problem: Diverged) -> Restart:
        """Load the last checkpoint, or the one before where that led to nothing but this, and write that down.

        Raises:
            FaroutError: no restart is left, or nothing was ever saved.
        """
        path, granted = self.checkpointing.path, self.survival.max_restarts
        if path is None or len(self.restarts) >= granted:
            lr = self.optimisation.lr
            tries = f", and {granted} restarts did not help" if granted else ""
            raise FaroutError(f"{problem}{tries}; lower lr (now {lr:g})") from None
        before, diverged_at, spent = self.restarts, self.step, self.earlier
        if not self.saved_since_restart and earlier(path).exists():
            os.replace(earlier(path), path)
        self.resume()
        restart = Restart(diverged_at, self.step, str(problem))
        self.restarts, self.saved_since_restart, self.earlier = [*before, restart], False, spent
        self.method.restarted(len(self.restarts))
        self._write(path)  # a killed process must not forget it
        return restart

    def resume(self) -> bool:
        """Load the checkpoint if there is one; True when training goes on from it."""
        path = self.checkpointing.path
        if path is None or not path.exists():
            return False
        state = load_state(path, next(self.model.parameters()).device)
        if state["tag"] != self.checkpointing.tag or state["total"] != self.total:
            raise FaroutError(f"{path} belongs to other data or another schedule: remove it to start this run afresh")
        self._restore(state)
        return True

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = self.saved_step = state["step"]
        self.earlier = state["seconds"]
        self.smoothed = SmoothedLosses(state.get("smoothed"))
        self.restarts = [Restart(**restart) for restart in state.get("restarts", ())]
        if self.restarts:
            self.method.restarted(len(self.restarts))


def keep(path: Path, name: Path) -> None:
    """Give a file a second name, so that the first one is never without a state; a copy where there are no links."""
    try:
        os.link(path, name)
    except OSError:
        write_atomically(name, lambda temporary: shutil.copyfile(path, temporary))


def earlier(path: Path) -> Path:
    """Where the state before the last one is kept while restarts are granted."""
    return path.with_suffix(".earlier.pt")


def _report(loop: Loop, bar: Bar, audience: Audience) -> None:
    losses = loop.smoothed.read()
    if not all(map(math.isfinite, losses.values())):
        bad = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
        raise loop.diverged(bad)
    losses |= {name: float(value) for name, value in loop.method.readings(loop.model).items()}
    rate = loop.images / max(1e-9, time.monotonic() - loop.started)
    parts = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
    bar.note(f"{parts} | {rate:,.0f} images/s")
    if audience.log is not None:
        parts_by_name = {f"train/{name}": value for name, value in losses.items()}
        audience.log(loop.step, {**parts_by_name, "lr": loop.rate(loop.step - 1), "images_per_s": rate})
    if audience.show is not None:
        audience.show(loop.step, loop.method.pictures())


def seconds_per_step(
    model: nn.Module, method: Method, batches: Batches, optimisation: Optimisation, steps: int = 2
) -> float:
    """Time one update on this device by doing a few for real (on networks the caller can spare), after one warm-up.

    The first labelled batches stand for the training images that the method may want to see before the first step.
    """
    loop = Loop(model, method, optimisation, 10**9, Checkpointing())
    model.train()
    first = batches(0)
    method.prepare(model, first, [batch for batch in first.values() if batch.labels is not None])
    loop.update(batches, seed=0)
    _wait(model)
    start = time.monotonic()
    for _ in range(steps):
        loop.update(batches, seed=0)
    _wait(model)
    return (time.monotonic() - start) / steps


def _wait(model: nn.Module) -> None:
    """Let the device finish, so that wall-clock time means work done."""
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
