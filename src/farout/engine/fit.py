"""The training loop. It knows streams, a loss and a checkpoint, and no paper."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from farout.backbones import Backbone
from farout.data.streams import stable_seed
from farout.engine import stopping
from farout.engine.checkpoint import on_cpu, save_state
from farout.engine.global_batch import spread_over
from farout.engine.graphs import CudaGraph, RecordableBatches, RecordedStep, Recorder
from farout.engine.processes import ALONE, Order, Processes
from farout.engine.progress import Bar, say
from farout.engine.restarts import Diverged, Restart, RestartPolicy
from farout.engine.schedules import Algorithm, LRSchedule
from farout.engine.states import RestartPoint, States, point_file
from farout.errors import FaroutError
from farout.files import also_as
from farout.methods import Batch, Method

Batches = Callable[[int], Mapping[str, Batch]]
TrainImages = Callable[[], Iterable[Batch]]
Log = Callable[[int, Mapping[str, float]], None]
OnRestart = Callable[[Restart], None]
LogImages = Callable[[int, Mapping[str, Tensor]], None]
Measure = Callable[[int, nn.Module], Mapping[str, float]]
Select = Callable[[nn.Module], float]


EPOCHS_APART = 1_000_000  # of the batches of one restart from those of the next


@dataclass(frozen=True)
class Optimisation:
    """SGD with Nesterov momentum, or Adam with betas (momentum, 0.999), and the learning rate of every update.

    Weight decay is on every parameter that requires gradients; frozen ones stay as they are to the bit.
    """

    lr: float
    lr_end: float = 1e-6
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    lr_schedule: LRSchedule = field(default_factory=LRSchedule)
    algorithm: Algorithm = "sgd"

    def rate(self, update: int, total: int, steps_per_epoch: int) -> float:
        """Learning rate of the 0-based `update` of `total`."""
        return self.lr_schedule.rate(update, total, steps_per_epoch, self.lr, self.lr_end)

    def optimizer(self, model: nn.Module, method: Method) -> torch.optim.Optimizer:
        parameters = [part for part in (*model.parameters(), *method.parameters()) if part.requires_grad]
        if self.algorithm == "adam":
            return torch.optim.Adam(parameters, self.lr, (self.momentum, 0.999), weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )

    @staticmethod
    def use_device_rate(optimizer: torch.optim.Optimizer, lr: Tensor) -> None:
        """Let the optimiser read its rate from a scalar on the device, and update all weights in one kernel.

        To be called again whenever a saved state was loaded, which brings its own settings along.
        """
        for group in optimizer.param_groups:
            group["lr"], group["fused"], group["foreach"] = lr, True, False
            if "capturable" in group:
                group["capturable"] = True
        for state in optimizer.state.values():
            if isinstance(state.get("step"), Tensor):  # Adam's count, on the host in states that a CPU wrote
                state["step"] = state["step"].to(lr.device)


@dataclass(frozen=True)
class Checkpointing:
    """Where and how often the full state is written, and when to stop for the day.

    None of it changes what is trained: where restarts are granted, the states that a divergence returns to are others,
    written by count (`RestartPolicy.every`).

    Args:
        path: the state file; a trustworthy one is resumed from.
        minutes, steps: write after this much work since the last (None: not by this measure).
        deadline: `time.monotonic()` after which the state is written and training pauses.
        tag: the images that the state belongs to; a state with another tag is refused.
        owner: the run, by its name and full identity; a state of another one is moved aside.
        conditions: what may change the last digits (device, threads, ...): kept, and a change on resuming is said.
    """

    path: Path | None = None
    minutes: float | None = 2.0
    steps: int | None = None
    deadline: float | None = None
    tag: str = ""
    owner: str = ""
    conditions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Callbacks:
    """What is called while training runs; nothing that it does changes what is trained.

    Args:
        title: of the progress bar.
        log: gets the averaged losses, the method's `log_scalars`, the rate, the speed and the seconds so far, every
            `log_every` updates and after the last.
        log_images: gets the method's images as often.
        on_restart: gets every restart.
        on_update: gets the number of updates so far, after each; what it raises ends training.
        name: of the run, for whoever asks how far it is.
        measure: gets the step and the network as often as `log`, which is told what it returns; it draws no random
            number and leaves every tensor of the network as it is.
    """

    title: str = "training"
    log: Log | None = None
    log_every: int = 50
    log_images: LogImages | None = None
    on_restart: OnRestart | None = None
    on_update: Callable[[int], None] | None = None
    name: str = ""
    measure: Measure | None = None


@dataclass(frozen=True)
class FitResult:
    """How far training came, in updates, and the seconds it took over all sessions.

    `best` says which update's weights were kept, after which epoch (from 0), at what figure; None: the last ones.
    `conditions` are those of every session that had others than the one before, with the update it began at.
    """

    step: int
    finished: bool
    seconds: float
    losses: dict[str, float]
    restarts: tuple[Restart, ...] = ()
    best: Mapping[str, Any] | None = None
    conditions: tuple[Mapping[str, Any], ...] = ()


class SmoothedLosses:
    """Exponential averages of the loss parts, kept on the device: 0.8 old + 0.2 new, from 0 at every epoch.

    This is the figure that the official codes log as training loss.
    """

    def __init__(self, values: Mapping[str, Tensor] | None = None) -> None:
        self.values: dict[str, Tensor] = dict(values or {})

    def update(self, losses: Mapping[str, Tensor]) -> None:
        """In place: what a recorded step adds to must stay where it is."""
        for name, loss in losses.items():
            new = loss.detach()
            old = self.values.setdefault(name, torch.zeros_like(new))
            old.copy_(0.8 * old + 0.2 * new)

    def restart(self) -> None:
        """From 0 again."""
        for value in self.values.values():
            value.zero_()

    def read(self) -> dict[str, float]:
        """Copy to the host: the only synchronisation of the loop."""
        if not self.values:
            return {}
        return dict(zip(self.values, numbers(self.values.values()), strict=True))


def numbers(values: Iterable[Tensor]) -> list[float]:
    """Scalars on a device as numbers, in one copy to the host."""
    there = list(values)
    wide = torch.float32 if there[0].device.type == "mps" else torch.float64  # all that Apple's GPUs have
    return torch.stack([value.detach().to(wide) for value in there]).tolist()


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
    start: Callable[[], None] | None = None,
    train_images: TrainImages | None = None,
    restart_policy: RestartPolicy | None = None,
    select: Select | None = None,
    callbacks: Callbacks | None = None,
    graphs: bool = False,
    processes: Processes = ALONE,
) -> FitResult:
    """Train in place for `total_steps` updates, resuming from the checkpoint if there is one.

    `start` is called where no state is resumed: it may read weights into the network.
    `train_images` gives every labelled training image once, for methods that want to see them before the first step.
    `select` gives a figure of the network after every epoch; weights and the method's state at its first maximum are
    what is left in place in the end.

    Randomness is a function of (seed, step, restarts): `batches` draws from it by contract, and the global generator
    (dropout) is reseeded every step. So a resumed run needs no generator state, and equals an uninterrupted one.

    With `graphs` a CUDA device replays whole updates (`farout.engine.graphs`), where batches come in two halves.
    Where `restart_policy` grants restarts, training that diverges goes back to a state that was kept for it.
    Of several `processes` this is the leader; the others call `follow` with the same networks, batches and rates.

    Raises:
        FaroutError: training diverged once too often, or the checkpoint belongs to something else.
        Interrupted, Terminated: by a signal; the latter with the state saved.
    """
    epoch = steps_per_epoch or total_steps
    loop = Loop(model, method, optimisation, total_steps, checkpointing or Checkpointing(), epoch, restart_policy)
    loop.processes = processes
    callbacks = callbacks or Callbacks()
    if graphs:
        loop.record_on_device(batches)
    try:
        model.train()
        method.train()
        if not loop.resume():
            if start is not None:
                start()
            method.prepare(model, batches(0), train_images() if train_images else ())
            loop.begin()
        loop.share_state()
        with Bar(callbacks.title, total_steps, loop.step, loop.note, "step") as bar, stopping.deferred():
            _train(loop, batches, seed, select, bar, callbacks)
    except KeyboardInterrupt:
        # Nothing is saved: it may fall amid an update, and half an update is no state to resume from.
        raise stopping.Interrupted(loop.where_it_stands(callbacks.name)) from None
    except stopping.Terminated:
        raise stopping.Terminated(loop.where_it_stands(callbacks.name)) from None
    processes.tell(Order.END)
    return loop.result()


def follow(loop: "Loop", batches: Batches, seed: int) -> None:
    """A follower's part of the leader's `fit`: its state, and a share of every update, until the leader ends it."""
    loop.model.train()
    loop.method.train()
    while (order := loop.processes.told()) is not Order.END:
        if order is Order.STATE:
            loop.take_state()
        else:
            with suppress(Diverged):  # which the leader sees as well, and decides what follows
                loop.update(batches, seed)


def _train(loop: "Loop", batches: Batches, seed: int, select: Select | None, bar: Bar, callbacks: Callbacks) -> None:
    """Update after update until the end, the deadline, or SIGTERM (then the state is saved first)."""
    while loop.step < loop.total and not loop.out_of_time():
        try:
            loop.advance(batches, seed)
            if select is not None:
                loop.select_when_due(select, callbacks)
            if loop.step % callbacks.log_every == 0 or loop.step == loop.total:
                _report(loop, bar, callbacks)
            if callbacks.on_update is not None:
                callbacks.on_update(loop.step)
            loop.save_when_due()
        except Diverged as problem:
            restart = loop.restart(problem)
            loop.share_state()
            if callbacks.on_restart is not None:
                callbacks.on_restart(restart)
        bar.at(loop.step)
        if stopping.asked():
            break
    if loop.step < loop.total or stopping.asked():
        loop.leave()


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
        restart_policy: RestartPolicy | None = None,
    ) -> None:
        self.model, self.method, self.optimisation = model, method, optimisation
        self.processes = ALONE
        self.total, self.steps_per_epoch = total, steps_per_epoch or total
        self.optimizer = optimisation.optimizer(model, method)
        self.checkpointing = checkpointing
        self.step, self.images = 0, 0
        self.started, self.earlier = time.monotonic(), 0.0
        self.saved_at, self.saved_step = self.started, 0
        self.on_disk: int | None = None  # the step of the latest state there
        self.latest = torch.zeros(())
        self.smoothed = SmoothedLosses()
        self.restart_policy = restart_policy or RestartPolicy()
        self.restarts: list[Restart] = []
        self.points: list[RestartPoint] = []  # where a divergence returns to: the last, and the one before
        self.saved_since_restart = True
        self.conditions: list[dict[str, Any]] = [{"from_step": 0, **checkpointing.conditions}]
        self.best: dict[str, Any] | None = None
        self.usual: list[int] | None = None
        self.recorded: RecordedStep | None = None
        device = next(model.parameters()).device
        self.device_rate = torch.tensor(optimisation.lr, device=device) if device.type == "cuda" else None
        self._use_device_rate()

    def _use_device_rate(self) -> None:
        if self.device_rate is not None:
            self.optimisation.use_device_rate(self.optimizer, self.device_rate)

    def advance(self, batches: Batches, seed: int) -> None:
        """One update, and its losses into the averages, which begin anew with every epoch; the last is checked."""
        if self.step % self.steps_per_epoch == 0:
            self.smoothed.restart()
        self.smoothed.update(self.update(batches, seed))
        if self.step == self.total:
            self.require_finite()

    def update(self, batches: Batches, seed: int) -> dict[str, Tensor]:
        """One optimiser update; returns the loss parts, still on the device."""
        if self.processes.rank == 0:
            self.processes.tell(Order.STEP)
        again = ("restart", len(self.restarts)) if self.restarts else ()
        torch.manual_seed(stable_seed(seed, "step", self.step, *again))
        # After a restart the batches of some far epoch, at the same place of it: same lengths, other images.
        number = self.step + len(self.restarts) * EPOCHS_APART * self.steps_per_epoch
        self._set_rate(self.rate(self.step))
        if self.recorded is None:
            streams = batches(number)
            images = sum(len(batch.images) for batch in streams.values())
            losses = self._work(streams, self._is_usual(streams))
        else:
            losses, images = self.recorded(number)
            if self.restart_policy.checks_losses:
                self._check_losses(losses)
        self.images += images
        self.step += 1
        self.latest = losses["total"].detach()
        return losses

    def record_on_device(self, batches: Batches) -> None:
        """`record` with CUDA graphs, where there is a CUDA device and nothing of a batch is made by the host."""
        device = next(self.model.parameters()).device
        if device.type == "cuda" and isinstance(batches, RecordableBatches) and batches.on_device:
            self.record(batches, lambda: CudaGraph(device, list(batches.generators.values())))

    def record(self, batches: RecordableBatches, recorder: Callable[[], Recorder]) -> None:
        """From now on do the updates by replaying a recorded one, where that is possible."""
        self.recorded = RecordedStep(self._work, batches, recorder)

    def _work(self, streams: Mapping[str, Batch], usual: bool) -> dict[str, Tensor]:
        """What the device does in one update."""
        with trunk_compiled(self.model, usual), spread_over(self.processes, self.model):
            losses = self.method.loss(self.model, streams)
        if self.restart_policy.checks_losses and self.recorded is None:
            self._check_losses(losses)
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        self.processes.average(self.model, self.parameters())
        self.optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that are optimised."""
        return (parameter for group in self.optimizer.param_groups for parameter in group["params"])

    def share_state(self) -> None:
        """Give the state to the processes that follow."""
        if self.processes.several:
            self.processes.tell(Order.STATE)
            self.processes.send(on_cpu(self._state()))

    def take_state(self) -> None:
        """Go on from the leader's state."""
        self._restore(self.processes.receive())

    def _is_usual(self, streams: Mapping[str, Batch]) -> bool:
        """Whether the batches have the sizes of the first ones."""
        sizes = [len(batch.images) for batch in streams.values()]
        self.usual = self.usual or sizes
        return sizes == self.usual

    def _set_rate(self, rate: float) -> None:
        if self.device_rate is not None:
            self.device_rate.fill_(rate)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def rate(self, update: int) -> float:
        """Learning rate of a 0-based update."""
        scheduled = self.optimisation.rate(update, self.total, self.steps_per_epoch)
        return scheduled * self.restart_policy.lr_factor ** len(self.restarts)

    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.started

    def images_per_s(self) -> float:
        """Over this session."""
        return self.images / max(1e-9, time.monotonic() - self.started)

    def note(self) -> str:
        """Losses and speed as they are now, for whoever watches; waits for the device."""
        return _noted(self.smoothed.read(), self.images_per_s())

    def out_of_time(self) -> bool:
        deadline = self.checkpointing.deadline
        return deadline is not None and time.monotonic() >= deadline

    def _check_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Raise Diverged for a total out of bounds or a part that is not finite: every step, whatever is logged."""
        values = dict(zip(losses, numbers(losses.values()), strict=True))
        self.restart_policy.check(values["total"], self.step)
        for name, value in values.items():
            if not math.isfinite(value):
                raise self.diverged(name)

    def begin(self) -> None:
        """Before the first update of all: what a divergence may return to."""
        if self.restart_policy.max_restarts:
            self.save_point()

    def select_when_due(self, select: Select, callbacks: Callbacks) -> None:
        """After every epoch, and at the end: keep the weights where they are better than all before."""
        if self.step % self.steps_per_epoch and self.step < self.total:
            return
        figure = select(self.model)
        self.model.train()
        if callbacks.log is not None:
            callbacks.log(self.step, {"selection": figure})
        if self.best is None or figure > self.best["figure"]:
            epoch = (self.step - 1) // self.steps_per_epoch
            parts = {"model": self.model.state_dict(), "method": self.method.state_dict()}
            self.best = {"figure": figure, "step": self.step, "epoch": epoch, **copy.deepcopy(parts)}

    def load_best(self) -> None:
        """The best epoch's weights and the method's state of that time, in place of the last ones."""
        assert self.best is not None
        self.model.load_state_dict(self.best["model"])
        self.method.load_state_dict(self.best["method"])

    def result(self) -> FitResult:
        """What has come of it; at the end of training the kept weights take their place first."""
        finished = self.step >= self.total
        if finished and self.best is not None:
            self.load_best()
        best = None if self.best is None else {key: self.best[key] for key in ("epoch", "step", "figure")}
        restarts, conditions = tuple(self.restarts), tuple(self.conditions)
        return FitResult(self.step, finished, self.seconds(), self.smoothed.read(), restarts, best, conditions)

    def where_it_stands(self, name: str = "") -> str:
        """Where training stands, and where the same command will go on."""
        where = f"at step {self.step} of {self.total}" + (f" of {name}" if name else "")
        if self.on_disk is None:
            return f"{where}; no checkpoint was written yet: the same command starts afresh"
        return f"{where}: the same command goes on from step {self.on_disk}"

    def save_when_due(self) -> None:
        """Write what a divergence returns to (by count), or else the latest state (by time or count)."""
        if self.step >= self.total:
            return
        if (
            self.restart_policy.max_restarts
            and self.step % self.restart_policy.interval(self.total, self.steps_per_epoch) == 0
        ):
            self.save_point()
            return
        rule = self.checkpointing
        by_time = rule.minutes is not None and time.monotonic() - self.saved_at >= 60 * rule.minutes
        by_steps = rule.steps is not None and self.step - self.saved_step >= rule.steps
        if by_time or by_steps or stopping.save_asked():
            self.save()

    def save(self) -> None:
        """Write the latest state.

        Numbers that are not finite end training, or where restarts are granted are left for the next update to find:
        when a state happens to be written must not decide anything.
        """
        path = self.checkpointing.path
        if path is None:
            return
        try:
            self.require_finite()
        except Diverged:
            if self.restart_policy.max_restarts:
                return
            raise
        self._write(path)

    def save_point(self) -> None:
        """Write a state that a divergence may return to; it is the latest state as well."""
        path = self.checkpointing.path
        if path is None:
            return
        self.require_finite()
        slot = 1 if self.points and self.points[0].slot == 0 else 0
        self.points = [RestartPoint(slot, len(self.restarts), self.step), *self.points[:1]]
        self.saved_since_restart = True
        self._write(point_file(path, slot))
        also_as(point_file(path, slot), path)

    def leave(self) -> None:
        """Save at the end of the day; raises FaroutError where the last updates came to nothing, without restarts."""
        try:
            self.save()
        except Diverged as problem:
            self._give_up(problem)

    def _write(self, path: Path) -> None:
        owner = self.checkpointing.owner
        best = {} if self.best is None else {"best": self.best}
        save_state(
            path, {"tag": self.checkpointing.tag, **({"owner": owner} if owner else {}), **self._state(), **best}
        )
        self.saved_at, self.saved_step, self.on_disk = time.monotonic(), self.step, self.step

    def _state(self) -> dict[str, Any]:
        """All that decides what happens next."""
        return {
            "step": self.step,
            "total": self.total,
            "seconds": self.seconds(),
            "smoothed": self.smoothed.values,
            "model": self.model.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": _with_plain_rates(self.optimizer.state_dict()),
            "restarts": [asdict(restart) for restart in self.restarts],
            "saved_since_restart": self.saved_since_restart,
            "points": [asdict(point) for point in self.points],
            "conditions": self.conditions,
        }

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

    def restart(self, problem: Diverged) -> Restart:
        """Load the last point, or the one before where that led to nothing but this, and write that down.

        Raises:
            FaroutError: no restart is left, or nothing was ever saved.
        """
        path = self.checkpointing.path
        if path is None or len(self.restarts) >= self.restart_policy.max_restarts:
            self._give_up(problem)
        before, conditions, diverged_at, spent = self.restarts, self.conditions, self.step, self.earlier
        if not self.saved_since_restart and len(self.points) > 1:
            self.points = self.points[1:]
        points, state = self._state_to_return_to(problem)
        self._restore(state)
        restart = Restart(diverged_at, self.step, str(problem))
        self.restarts, self.saved_since_restart, self.earlier = [*before, restart], False, spent
        self.points, self.conditions = points, conditions
        self.method.restarted(len(self.restarts))
        self._write(path)  # a killed process must not forget it
        return restart

    def _state_to_return_to(self, problem: Diverged) -> tuple[list[RestartPoint], dict[str, Any]]:
        """The first point that can be read, with those after it; where none can, the latest state there is."""
        states = self._states()
        for number, point in enumerate(self.points):
            state = states.at(point)
            if state is not None:
                return self.points[number:], state
            say(f"note: the state of step {point.step}, to return to, is gone or damaged: training takes another")
        latest = states.latest()
        if latest is None:
            raise FaroutError(f"{problem}, and there is no state to return to") from None
        return [], latest

    def _give_up(self, problem: Diverged) -> NoReturn:
        lr, granted = self.optimisation.lr, self.restart_policy.max_restarts
        tries = f", and {granted} restarts did not help" if granted else ""
        raise FaroutError(f"{problem}{tries}; lower lr (now {lr:g})") from None

    def _states(self) -> States:
        rule = self.checkpointing
        assert rule.path is not None
        return States(rule.path, rule.owner, rule.tag, self.total)

    def resume(self) -> bool:
        """Load the furthest state that can be trusted, if there is one; True when training goes on from it."""
        if self.checkpointing.path is None:
            return False
        state = self._states().latest()
        if state is None:
            return False
        self._restore(state)
        self._note_conditions()
        if self.restart_policy.max_restarts and not self.points:  # written by a version that kept none
            self.save_point()
        return True

    def _restore(self, state: dict[str, Any]) -> None:
        device = next(self.model.parameters()).device
        self.model.load_state_dict(state["model"])
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = self.saved_step = self.on_disk = state["step"]
        self.earlier = state["seconds"]
        self.smoothed = SmoothedLosses({name: value.to(device) for name, value in state.get("smoothed", {}).items()})
        self.restarts = [Restart(**restart) for restart in state.get("restarts", ())]
        self.points = [RestartPoint(**point) for point in state.get("points", ())]
        self.saved_since_restart = state.get("saved_since_restart", True)
        self.conditions = list(state.get("conditions", ()))
        self.best = state.get("best")
        self.latest = torch.zeros(())
        self._use_device_rate()
        if self.recorded is not None:
            self.recorded.forget()
        if self.restarts:
            self.method.restarted(len(self.restarts))

    def _note_conditions(self) -> None:
        """Say and keep what changed since the session before: the last digits may not be what they would have been."""
        now = dict(self.checkpointing.conditions)
        was = {key: value for key, value in (self.conditions or [{}])[-1].items() if key != "from_step"}
        if now == was or not now:
            return
        changed = [f"{key} {value} (was {was[key]})" for key, value in now.items() if was.get(key, value) != value]
        if changed:
            say(f"note: goes on under other conditions, which may change the last digits: {', '.join(changed)}")
        self.conditions.append({"from_step": self.step, **now})


def _with_plain_rates(state: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's state whose rates are numbers, wherever they were kept."""
    groups = [group | {"lr": float(group["lr"])} for group in state["param_groups"]]
    return state | {"param_groups": groups}


@contextmanager
def trunk_compiled(model: nn.Module, usual: bool) -> Iterator[None]:
    """A backbone's compiled trunk, where it has one, for batches of the usual size."""
    if not isinstance(model, Backbone):
        yield
        return
    model.uses_compiled = usual
    try:
        yield
    finally:
        model.uses_compiled = False


def _noted(losses: Mapping[str, float], rate: float) -> str:
    parts = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
    return f"{parts} | {rate:,.0f} images/s"


def _measured(loop: Loop, callbacks: Callbacks) -> dict[str, float]:
    """What `callbacks.measure` says of the network, which goes on training as if nobody had looked."""
    if callbacks.measure is None:
        return {}
    found = dict(callbacks.measure(loop.step, loop.model))
    loop.model.train()
    return found


def _report(loop: Loop, bar: Bar, callbacks: Callbacks) -> None:
    losses = loop.smoothed.read()
    if not all(map(math.isfinite, losses.values())):
        bad = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
        raise loop.diverged(bad)
    losses |= {name: float(value) for name, value in loop.method.log_scalars(loop.model).items()}
    rate = loop.images_per_s()
    bar.note(_noted(losses, rate))
    if callbacks.log is not None:
        parts = {f"train/{name}": value for name, value in losses.items()}
        facts = {"lr": loop.rate(loop.step - 1), "images_per_s": rate, "seconds": round(loop.seconds(), 2)}
        callbacks.log(loop.step, {**parts, **facts, **_measured(loop, callbacks)})
    if callbacks.log_images is not None:
        callbacks.log_images(loop.step, loop.method.log_images())
