"""Two processes train as one does at the same batch size: every method, in float64, short and odd batches too."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from farout.backbones import Backbone
from farout.backbones.plain_wide_resnet import PlainWideResNet
from farout.backbones.projected_resnet import ProjectedResNet18
from farout.backbones.wide_resnet import WideResNet
from farout.config.settings import TrainerSettings
from farout.data.streams import EndlessShuffle, EpochShuffle
from farout.data.transform import Transform
from farout.data.views import ViewTransform
from farout.engine.batches import DeviceBatches, Stream
from farout.engine.fit import Callbacks, Checkpointing, Loop, Optimisation, fit, follow
from farout.engine.processes import ALONE, BatchNorm, Order, Processes
from farout.engine.restarts import Restart, RestartPolicy
from farout.methods import CIDER, JEM, Batch, CrossEntropy, EnergyFineTuning, Method, OutlierExposure, SupCon
from farout.runs.devices import several_devices

CPU = torch.device("cpu")
STEPS, IMAGES, BATCH = 20, 19, 5  # so an epoch ends with a batch of 4, and every fourth is odd for two processes
BOUND = 2.5  # that the loss of the third step exceeds
TRANSFORM = Transform([0.5] * 3, [0.25] * 3, flip=True, crop_padding=4)
VIEWS = ViewTransform([0.5] * 3, [0.25] * 3, 2, None, (0.2, 1.0), (0.75, 1.33), True, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2)


def _wide() -> Backbone:
    return WideResNet(10, 1, 10, dropout=0.3, pool=4)


def _projected() -> Backbone:
    return ProjectedResNet18(10, width=4)


def _plain() -> Backbone:
    return PlainWideResNet(10, 1, 10, pool=4)


CASES: dict[str, tuple[Callable[[], Backbone], Callable[[], Method]]] = {
    "cross-entropy": (_wide, CrossEntropy),
    "energy": (_wide, lambda: EnergyFineTuning(-25, -7, 0.1, 1.0)),
    "OE": (_wide, lambda: OutlierExposure(0.5)),
    "SupCon": (_projected, lambda: SupCon(0.1, 0.07)),
    "CIDER": (_projected, lambda: CIDER(2, 0.95, 0.1, 0.07, "both", "ema")),
    "CIDER, learnable prototypes": (_projected, lambda: CIDER(2, 0.95, 0.1, 0.07, "both", "learnable")),
    "JEM": (_plain, lambda: JEM(1, 1, 0, False, 100, 0.05, 3, 1.0, 0.01, None, None, "fp32", 0)),
    "JEM by class": (_plain, lambda: JEM(1, 1, 0, True, 100, 0.05, 2, 1.0, 0.01, None, None, "fp32", 0)),
}


def _record(method: Method, seen: list[dict[str, float]]) -> None:
    """From now on keep the loss parts of every step."""
    loss = method.loss

    def recorded(model: nn.Module, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        parts = loss(model, batches)
        seen.append({name: float(value.detach()) for name, value in parts.items()})
        return parts

    method.loss = recorded  # type: ignore[method-assign]


def _batches(method: type[Method]) -> DeviceBatches:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, 16, 16), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (IMAGES,), generator=generator)
    shuffled = {
        name: EpochShuffle(IMAGES, BATCH, 1, name, CPU, method.drop_last) for name in ("labelled", "unlabelled")
    }
    streams = {
        "labelled": Stream(images, labels, None, shuffled["labelled"]),
        "unlabelled": Stream(images, None, None, shuffled["unlabelled"]),
        "outliers": Stream(images, None, None, EndlessShuffle(IMAGES, 8, 1, "outliers", CPU), outliers=True),
    }
    transform = VIEWS if method.embeds else TRANSFORM
    return DeviceBatches({name: streams[name] for name in method.streams}, transform, 1, CPU, channels_last=True)


@dataclass(frozen=True)
class Case:
    """A training, and what a follower is sent of it."""

    name: str
    steps: int = STEPS
    bound: float | None = None
    batch_norm: BatchNorm = "global"

    def parts(self) -> tuple[Backbone, Method, Callable[[int], dict[str, Batch]], Optimisation]:
        torch.manual_seed(0)
        build, method_of = CASES[self.name]
        model, method = build().double(), method_of()
        batches = _batches(type(method))
        return model, method, lambda step: _doubled(batches(step)), Optimisation(lr=0.01)

    def carry_out(self, processes: Processes, device: torch.device) -> None:
        processes = replace(processes, batch_norm=self.batch_norm)
        torch.manual_seed(processes.rank)  # what a follower has before the leader's state counts for nothing
        model, method, batches, optimisation = self.parts()
        nn.init.zeros_(model.head.weight)
        policy = RestartPolicy(loss_bound=self.bound, lr_factor=0.1)
        loop = Loop(model, method, optimisation, self.steps, Checkpointing(), 4, policy)
        loop.processes = processes
        follow(loop, batches, seed=0)

    def train(
        self, processes: Processes = ALONE, seen: list[dict[str, float]] | None = None, **options: Any
    ) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
        """The loss parts of every step (also put into `seen`), and all weights and buffers in the end."""
        processes.send(self)
        model, method, batches, optimisation = self.parts()
        seen = [] if seen is None else seen
        _record(method, seen)
        train_images = [Batch(batch.images.double(), batch.labels) for batch in _batches(type(method)).train_images()]
        fit(
            model,
            method,
            batches,
            optimisation,
            self.steps,
            steps_per_epoch=4,
            train_images=lambda: train_images,
            processes=processes,
            **options,
        )
        return seen, {**model.state_dict(), **method.state_dict(prefix="method.")}


def _doubled(batches: Mapping[str, Batch]) -> dict[str, Batch]:
    return {name: Batch(batch.images.double(), batch.labels) for name, batch in batches.items()}


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("farout.runs.devices.PATIENCE", timedelta(minutes=2))  # so that a failure is no endless wait
        with several_devices(TrainerSettings(devices=2), CPU) as processes:
            yield processes


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_does(name: str, two: Processes) -> None:
    alone, weights = Case(name).train()
    together, theirs = Case(name).train(two)
    assert len(alone) == len(together) == STEPS
    for ours, other in zip(alone, together, strict=True):
        assert other == pytest.approx(ours, rel=1e-12, abs=1e-12)
    for key, value in weights.items():
        assert torch.allclose(theirs[key], value, rtol=1e-9, atol=1e-11), key


class Killed(Exception):
    """Stands for what ends a process after some steps."""


def _killed_after(steps: int | None) -> Callbacks:
    def log(step: int, losses: Mapping[str, float]) -> None:
        if step == steps:
            raise Killed

    return Callbacks(log=log, log_every=1)


def test_a_run_goes_on_with_another_number_of_processes(two: Processes, tmp_path: Path) -> None:
    """A state says nothing of how many wrote it: two begin, one goes on from update 8, and two from update 14."""
    whole, weights = Case("CIDER").train()
    rule = Checkpointing(tmp_path / "checkpoint.pt", minutes=None, steps=1)
    for processes, first, last in ((two, 0, 9), (ALONE, 8, 15), (two, 14, None)):
        recorded: list[dict[str, float]] = []
        with suppress(Killed):
            _, theirs = Case("CIDER").train(processes, recorded, checkpointing=rule, callbacks=_killed_after(last))
        if last is not None:
            processes.tell(Order.END)
        assert len(recorded) == (last or STEPS) - first
        for ours, other in zip(whole[first:last], recorded, strict=True):
            assert other == pytest.approx(ours, rel=1e-12, abs=1e-12)
    for key, value in weights.items():
        assert torch.allclose(theirs[key], value, rtol=1e-9, atol=1e-11), key


def test_each_process_may_norm_its_own_part(two: Processes) -> None:
    """Local statistics train something else; what an evaluation reads of them is the mean of both."""
    theirs = {}
    ways: tuple[BatchNorm, ...] = ("global", "local")
    for batch_norm in ways:
        processes = replace(two, batch_norm=batch_norm)
        case = Case("OE", steps=1, batch_norm=batch_norm)
        theirs[batch_norm] = case.train(processes)[1]
    whole, own = theirs["global"], theirs["local"]
    mean, variance = ("block1.layer.0.bn1.running_mean", "block1.layer.0.bn1.running_var")
    assert not torch.allclose(own["conv1.weight"], whole["conv1.weight"], rtol=1e-6, atol=0)
    # 13 images: 7 and 6, whose means weigh alike here, and whose variances are about their own means.
    assert torch.allclose(own[mean], whole[mean], rtol=0, atol=0.1 * whole[mean].abs().max())
    assert not torch.allclose(own[variance], whole[variance], rtol=1e-9, atol=0)


def test_two_processes_survive_a_divergence_as_one_does(two: Processes, tmp_path: Path) -> None:
    """A loss beyond its bound stops both before it changes a weight, and both go on from the leader's state."""
    policy = RestartPolicy(max_restarts=5, loss_bound=BOUND, lr_factor=0.1, every=2)
    seen = []
    for number, processes in enumerate((ALONE, two)):
        rule = Checkpointing(tmp_path / f"{number}.pt")
        restarts: list[Restart] = []
        callbacks = Callbacks(on_restart=restarts.append)
        steps, _ = Case("cross-entropy", steps=8, bound=BOUND).train(
            processes, checkpointing=rule, restart_policy=policy, callbacks=callbacks
        )
        seen.append((steps, restarts))
    (alone, restarts), (together, theirs) = seen
    assert restarts
    assert [(each.diverged_at, each.resumed_from) for each in restarts] == [
        (each.diverged_at, each.resumed_from) for each in theirs
    ]
    for ours, other in zip(alone, together, strict=True):
        assert other == pytest.approx(ours, rel=1e-12, abs=1e-12)
