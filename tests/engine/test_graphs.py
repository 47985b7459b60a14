"""Recorded steps, with a recorder that repeats the work in place of CUDA: what a replay reads lies in fixed places."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from farout.backbones.plain_wide_resnet import PlainWideResNet
from farout.backbones.projected_resnet import ProjectedResNet18
from farout.backbones.wide_resnet import WideResNet
from farout.data.streams import EndlessShuffle, EpochShuffle
from farout.data.transform import Transform
from farout.data.views import ViewTransform
from farout.engine.batches import DeviceBatches, Stream
from farout.engine.fit import Callbacks, Checkpointing, Loop, Optimisation, fit
from farout.engine.graphs import WARM_UP
from farout.methods import JEM, CrossEntropy, EnergyFineTuning, Method, SupCon

CPU = torch.device("cpu")
TRANSFORM = Transform([0.5] * 3, [0.25] * 3, flip=True, crop_padding=4)
VIEWS = ViewTransform([0.5] * 3, [0.25] * 3, 2, None, (0.2, 1.0), (0.75, 1.33), True, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2)
READS_OF_VALUES = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique_dim"}


class Repeating:
    """Stands for a CUDA graph: work is recorded without being done, and replays may not seed or read values."""

    def __init__(self) -> None:
        self.replays = 0

    def apart(self, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return work()

    def record(self, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        self.work, self.losses = work, {}
        return self.losses

    def replay(self) -> None:
        self.replays += 1
        with DeviceOnly(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "manual_seed", _refuse)
            patch.setattr("farout.engine.batches.stable_seed", _refuse)
            self.losses.update(self.work())


class DeviceOnly(TorchDispatchMode):
    """Refuses what makes the host wait for the device, or gives shapes that only the device knows."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.name().split(".")[0] in READS_OF_VALUES:
            raise AssertionError(f"{function} within a replay")
        return function(*args, **(kwargs or {}))


def _refuse(*args: object) -> None:
    raise AssertionError("a seed set within a replay")


class Unrecordable(Repeating):
    def record(self, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nlong explanation")


def _batches(method: type[Method], n: int = 40) -> DeviceBatches:
    """Batches of 16; with 40 images the last one of an epoch has 8."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (n,), generator=generator)
    shuffled = {name: EpochShuffle(n, 16, 1, name, CPU, method.drop_last) for name in ("labelled", "unlabelled")}
    streams = {
        "labelled": Stream(images, labels, None, shuffled["labelled"]),
        "unlabelled": Stream(images, None, None, shuffled["unlabelled"]),
        "outliers": Stream(images, None, None, EndlessShuffle(n, 16, 1, "outliers", CPU), outliers=True),
    }
    transform = VIEWS if method.embeds else TRANSFORM
    return DeviceBatches({name: streams[name] for name in method.streams}, transform, 1, CPU, channels_last=False)


CASES: dict[str, tuple[Callable[[], Any], Callable[[], Method]]] = {
    "SupCon": (lambda: ProjectedResNet18(10, width=8), lambda: SupCon(0.1, 0.07)),
    "cross-entropy with dropout": (lambda: WideResNet(10, 1, 10, dropout=0.3), CrossEntropy),
    "energy": (lambda: WideResNet(10, 1, 10), lambda: EnergyFineTuning(-25, -7, 0.1, 1.0)),
    "JEM": (
        lambda: PlainWideResNet(10, 1, 10, stem_stride=2, pool=4),
        lambda: JEM(1, 1, 0, False, 100, 0.05, 2, 1.0, 0.01, None, None, "fp32", 0),
    ),
}


def _loop(name: str, recorder: type[Repeating] | None) -> tuple[Loop, DeviceBatches]:
    torch.manual_seed(0)
    build, method_of = CASES[name]
    model, method = build(), method_of()
    batches = _batches(type(method))
    loop = Loop(model, method, Optimisation(lr=0.05), 100, Checkpointing(), steps_per_epoch=3)
    if recorder is not None:
        loop.record(batches, recorder)
    model.train()
    method.prepare(model, batches(0), batches.train_images())
    return loop, batches


def _losses(loop: Loop, batches: DeviceBatches, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        loop.advance(batches, seed=0)
        seen.append(float(loop.latest))
    return seen


def _replays(loop: Loop) -> int:
    assert loop.recorded is not None
    recorder = loop.recorded.recorder
    assert isinstance(recorder, Repeating)
    return recorder.replays


@pytest.mark.parametrize("name", CASES)
def test_replays_train_as_single_launches_do(name: str) -> None:
    """Every batch its own images, seeds and rate, short batches among them; equal to the bit."""
    single, replayed = _loop(name, None), _loop(name, Repeating)
    assert _losses(*single, 11) == _losses(*replayed, 11)
    short = 0 if replayed[0].method.drop_last else 3  # of 11 updates: the third of every three
    assert _replays(replayed[0]) == 11 - short - WARM_UP
    weights = replayed[0].model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in single[0].model.state_dict().items())
    assert single[0].smoothed.read() == replayed[0].smoothed.read()
    assert single[0].images == replayed[0].images


def test_what_cannot_be_recorded_is_launched_singly_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    single, broken = _loop("energy", None), _loop("energy", Unrecordable)
    assert _losses(*single, 7) == _losses(*broken, 7)
    said = capsys.readouterr().out
    assert said.count("launched one by one: operation not permitted when stream is capturing") == 1
    assert "long explanation" not in said


def test_a_loaded_state_is_recorded_anew() -> None:
    """Loading may replace tensors; a graph would go on reading the old ones."""
    loop, batches = _loop("JEM", Repeating)
    _losses(loop, batches, 6)
    first = loop.recorded.recorder  # type: ignore[union-attr]
    state = {
        "model": loop.model.state_dict(), "method": loop.method.state_dict(), "optimizer": loop.optimizer.state_dict(),
        "step": loop.step, "seconds": 0.0,
    }  # fmt: skip
    loop._restore(state)
    _losses(loop, batches, 6)
    assert loop.recorded is not None
    assert loop.recorded.recorder is not first
    assert _replays(loop) == 6 - WARM_UP


def test_rates_on_the_device_are_saved_as_numbers_and_taken_up_from_states_without(tmp_path: Any) -> None:
    """States are alike whatever the optimiser reads its rate from; a CPU's state goes on with a rate on the device."""
    plain, _ = _loop("energy", None)
    batches = _batches(EnergyFineTuning)
    held, _ = _loop("energy", None)
    held.device_rate = torch.tensor(0.05)
    held._use_device_rate()
    assert _losses(plain, batches, 4) == pytest.approx(_losses(held, batches, 4), rel=1e-5)
    held.checkpointing = Checkpointing(tmp_path / "held.pt")
    held.save()
    saved = torch.load(tmp_path / "held.pt", weights_only=True)["optimizer"]["param_groups"][0]
    assert isinstance(saved["lr"], float)
    assert saved["lr"] == pytest.approx(plain.optimizer.param_groups[0]["lr"])
    held.optimizer.load_state_dict(plain.optimizer.state_dict())
    held._use_device_rate()
    assert held.optimizer.param_groups[0]["lr"] is held.device_rate
    assert held.optimizer.param_groups[0]["fused"]


class ValuesRead(TorchDispatchMode):
    """Counts where the host asks for values that the device computes: each of them would wait for it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.count = 0
        original = Tensor.tolist

        def tolist(tensor: Tensor) -> Any:  # on a CPU no operation shows it
            self.count += 1
            return original(tensor)

        patch.setattr(Tensor, "tolist", tolist)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function.name().split(".")[0] in READS_OF_VALUES
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CASES)
def test_the_host_waits_when_it_reports_and_at_no_update(name: str) -> None:
    """Ten updates more cost no look at a value; only a report's losses, and the check at the very end, are read."""

    def read(steps: int, log_every: int) -> int:
        loop, batches = _loop(name, None)
        callbacks = Callbacks(log=lambda step, losses: None, log_every=log_every)
        with pytest.MonkeyPatch.context() as patch, ValuesRead(patch) as values:
            fit(loop.model, loop.method, batches, Optimisation(lr=0.01), steps, callbacks=callbacks)
        return values.count

    assert read(4, 100) == read(14, 100) > 0, "the one report at the end is seen"
    assert read(8, 2) > read(8, 100), "more reports are seen"


def test_fit_trains_singly_where_there_is_no_cuda() -> None:
    model, method = WideResNet(10, 1, 10), CrossEntropy()
    result = fit(model, method, _batches(CrossEntropy), Optimisation(lr=0.05), 2, graphs=True)
    assert result.finished
