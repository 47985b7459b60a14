"""What only a GPU can show; skipped without one."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from farout.backbones import Backbone
from farout.backbones.cifar_resnet import CifarResNet
from farout.backbones.plain_wide_resnet import PlainWideResNet
from farout.backbones.projected_resnet import ProjectedResNet18
from farout.backbones.wide_resnet import WideResNet
from farout.config.settings import ROOT
from farout.data import ImageSet
from farout.data.streams import EndlessShuffle, EpochShuffle
from farout.data.transform import Transform
from farout.data.views import ViewTransform
from farout.engine.batches import DeviceBatches, Stream
from farout.engine.evaluate import collect
from farout.engine.fit import Callbacks, Checkpointing, Loop, Optimisation, fit
from farout.engine.host import HostRows, to_device
from farout.engine.precision import full_fp32
from farout.methods import CIDER, JEM, CrossEntropy, EnergyFineTuning, Method, SupCon

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CUDA = torch.device("cuda")
TRANSFORM = Transform([0.5] * 3, [0.25] * 3, flip=True, crop_padding=4)
VIEWS = ViewTransform(
    [0.5] * 3, [0.25] * 3, 2, None, (0.2, 1.0), (0.75, 1.33), True, (0.4, 0.4, 0.4, 0.1), 0.8, grayscale_probability=0.2
)


def _batches(method: type[Method], device: torch.device = CUDA, n: int = 240) -> DeviceBatches:
    """Batches of 64; with 240 images the last one of an epoch has 48."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (n,), generator=generator)
    all_streams = {
        "labelled": Stream(images, labels, None, EpochShuffle(n, 64, 1, "labelled", device, method.drop_last)),
        "unlabelled": Stream(images, None, None, EpochShuffle(n, 64, 1, "unlabelled", device, method.drop_last)),
        "outliers": Stream(images, None, None, EndlessShuffle(n, 128, 1, "outliers", device), outliers=True),
    }
    streams = {name: all_streams[name] for name in method.streams}
    return DeviceBatches(streams, VIEWS if method.embeds else TRANSFORM, 1, device, channels_last=True)


def _jem() -> JEM:
    return JEM(1, 1, 0, False, 100, 0.05, 3, 1.0, 0.01, None, None, "fp32", 0)


@contextmanager
def deterministic() -> Iterator[None]:
    """Without the kernels of cuDNN whose additions come in no fixed order."""
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = False


CASES: dict[str, tuple[Callable[[], Backbone], Callable[[], Method], str]] = {
    "cross-entropy with dropout": (lambda: WideResNet(10, 2, 10, dropout=0.3), CrossEntropy, "sgd"),
    "energy": (lambda: CifarResNet(20, 10), lambda: EnergyFineTuning(-25, -7, 0.1, 1.0), "sgd"),
    "CIDER": (
        lambda: ProjectedResNet18(10, width=16),
        lambda: CIDER(2.0, 0.95, 0.1, 0.07, "both", "ema"),
        "sgd",
    ),
    "SupCon": (lambda: ProjectedResNet18(10, width=16), lambda: SupCon(0.1, 0.07), "sgd"),
    "JEM": (lambda: PlainWideResNet(10, 1, 10), _jem, "adam"),
}


def _trained(name: str, steps: int, graphs: bool, state: Path | None = None, **options: Any) -> dict[str, Any]:
    """The losses of every step and the weights in the end."""
    build, method_of, algorithm = CASES[name]
    torch.manual_seed(0)
    model = build().to(CUDA).to_channels_last()
    model.autocast_dtype = options.get("dtype")
    if options.get("compiled"):
        model.compile_trunk()
    method = method_of().to(CUDA)
    batches = _batches(type(method))
    seen: list[float] = []
    with full_fp32():
        fit(
            model,
            method,
            batches,
            Optimisation(lr=1e-4 if algorithm == "adam" else 0.05, algorithm=algorithm),  # type: ignore[arg-type]
            options.get("total", steps),
            steps_per_epoch=4,
            train_images=batches.train_images,
            graphs=graphs,
            checkpointing=Checkpointing(state, minutes=None, steps=options.get("every"), deadline=None),
            callbacks=Callbacks(log=lambda step, values: seen.append(values["train/total"]), log_every=1),
        )
    return {"losses": seen, "weights": {**model.state_dict(), **method.state_dict()}}


@pytest.mark.parametrize("name", CASES)
def test_replayed_steps_are_the_steps_launched_singly(name: str) -> None:
    """50 updates in float32, among them the short last batches of epochs: the same losses, to the bit."""
    with deterministic():
        single, replayed = (_trained(name, 50, graphs) for graphs in (False, True))
    assert single["losses"] == replayed["losses"]


@pytest.mark.parametrize("name", CASES)
def test_the_step_really_is_a_graph(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    build, method_of, algorithm = CASES[name]
    model, method = build().to(CUDA), method_of().to(CUDA)
    batches = _batches(type(method))
    loop = Loop(model, method, Optimisation(lr=1e-4, algorithm=algorithm), 100, Checkpointing())  # type: ignore[arg-type]
    loop.record_on_device(batches)
    method.prepare(model, batches(0), batches.train_images())
    for _ in range(8):
        loop.update(batches, seed=0)
    assert loop.recorded is not None
    assert loop.recorded.losses is not None and not loop.recorded.broken, capfd.readouterr().err


@pytest.mark.parametrize("name", ["cross-entropy with dropout", "JEM"])
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    """With deterministic kernels, bit for bit: the first replays after resuming come later than they would have."""
    with deterministic():
        whole = _trained(name, 24, graphs=True)
        _interrupted(name, 13, tmp_path / "state.pt", total=24)
        rest = _trained(name, 24, graphs=True, state=tmp_path / "state.pt")
    assert len(rest["losses"]) == 11
    assert all(torch.equal(value, rest["weights"][key]) for key, value in whole["weights"].items())


def _interrupted(name: str, steps: int, state: Path, total: int) -> None:
    """As `_trained`, but stopped after so many steps with the state written."""
    build, method_of, algorithm = CASES[name]
    torch.manual_seed(0)
    model, method = build().to(CUDA).to_channels_last(), method_of().to(CUDA)
    batches = _batches(type(method))
    optimisation = Optimisation(lr=1e-4 if algorithm == "adam" else 0.05, algorithm=algorithm)  # type: ignore[arg-type]
    with full_fp32():
        loop = Loop(model, method, optimisation, total, Checkpointing(state), 4)
        loop.record_on_device(batches)
        model.train()
        method.prepare(model, batches(0), batches.train_images())
        for _ in range(steps):
            loop.advance(batches, seed=0)
        loop.save()


@pytest.mark.parametrize("compiled", [False, True])
def test_energy_fine_tuning_runs_in_bf16_and_lowers_its_loss(compiled: bool) -> None:
    found = _trained("energy", 40, graphs=True, dtype=torch.bfloat16, compiled=compiled)
    assert sum(found["losses"][-8:]) < sum(found["losses"][:8])


def test_logits_are_float32_in_bf16() -> None:
    model = CifarResNet(20, 10).to(CUDA)
    model.autocast_dtype = torch.bfloat16
    assert model(torch.zeros(2, 3, 32, 32, device=CUDA)).dtype == torch.float32


def test_batches_see_the_same_images_as_on_the_cpu() -> None:
    here, there = _batches(EnergyFineTuning, torch.device("cpu")), _batches(EnergyFineTuning, CUDA)
    for step in (0, 3, 5):
        assert torch.equal(here(step)["labelled"].targets, there(step)["labelled"].targets.cpu())


def test_the_step_waits_for_the_device_nowhere() -> None:
    """Whatever copies to the host, or asks for a size that the device decides, raises here."""
    for name, (build, method_of, algorithm) in CASES.items():
        model, method = build().to(CUDA), method_of().to(CUDA)
        batches = _batches(type(method))
        loop = Loop(model, method, Optimisation(lr=1e-4, algorithm=algorithm), 100, Checkpointing())  # type: ignore[arg-type]
        loop.record_on_device(batches)
        method.prepare(model, batches(0), batches.train_images())
        for _ in range(3):
            loop.update(batches, seed=0)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            streams = batches(1)
            losses = loop.method.loss(model, streams)
            losses["total"].backward()
        except RuntimeError as problem:
            raise AssertionError(name) from problem
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_pinned_copies_bring_every_batch_whole() -> None:
    """While the device is busy the host goes on, and must not write into memory that is still to be read."""
    torch.cuda._sleep(200_000_000)
    there = [to_device(torch.full((1024, 1024), float(number)), CUDA) for number in range(64)]
    assert [float(rows.min()) for rows in there] == [float(rows.max()) for rows in there] == list(range(64))


@pytest.mark.parametrize("block_bytes", [1, 3000, 2**28])
def test_rows_come_back_in_order_whatever_is_fetched_at_once(block_bytes: int) -> None:
    rows = torch.randn(1000, 7)
    gathered = HostRows(block_bytes)
    for some in rows.split(96):
        gathered.add(to_device(some, CUDA))
    assert torch.equal(gathered.all(), rows)


def test_collected_outputs_are_those_of_the_cpu() -> None:
    model = CifarResNet(20, 10).eval()
    images = ImageSet("x", "test", torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8), None, (), raw=False)
    with full_fp32():
        here = collect(model, TRANSFORM, images, torch.device("cpu"), 64)
        there = collect(model.to(CUDA), TRANSFORM, images, CUDA, 64)
    assert torch.allclose(here.logits, there.logits, atol=1e-4)
    assert torch.allclose(here.features, there.features, atol=1e-4)


def test_prototypes_of_the_kernel_are_those_of_the_loop() -> None:
    from farout.methods.sphere import advance, advance_on_device, rank_order

    generator = torch.Generator().manual_seed(3)
    for classes, width, n in ((10, 128, 512), (100, 128, 1024), (7, 65, 20)):
        start = nn.functional.normalize(torch.randn(classes, width, generator=generator), dim=1).to(CUDA)
        start[1] = 0
        points = nn.functional.normalize(torch.randn(n, width, generator=generator), dim=1).to(CUDA)
        labels = torch.randint(0, classes, (n,), generator=generator).to(CUDA)
        weights = torch.randn(classes, width, generator=generator).to(CUDA)
        found = []
        for way in ("loop", "kernel"):
            old, new = start.clone().requires_grad_(), points.clone().requires_grad_()
            if way == "loop":
                moved = advance(old, new, 0.5, rank_order(labels, classes, CUDA))
            else:
                moved = advance_on_device(old, new, 0.5, labels)
            (moved * weights).sum().backward()
            found.append((moved.detach(), old.grad, new.grad))
        for ours, theirs in zip(*found, strict=True):
            assert ours is not None
            assert theirs is not None
            assert torch.allclose(ours, theirs, atol=2e-6)


def test_a_command_trains_on_a_gpu_with_everything_left_to_auto(tmp_path: Path) -> None:
    """Device, precision and compiler: from the first line to the exported weights."""
    words = ["method=cider", "backbone=resnet18_cider", "backbone.width=8", "id_data=digits", "scale=smoke"]
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *words, "logger=none", f"paths.outputs={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("runs/*/run.json")
    assert "bf16" in record.read_text() and (record.parent / "weights.safetensors").exists()
