"""DenseNet-BC: sizes, the three ways to the same maps, and ODIN's trained network where the packs hold it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from farout.backbones import load_foreign_state
from farout.backbones.densenet import DenseNet
from farout.data import DataPaths, open_dataset
from farout.engine.evaluate import accuracy, collect
from farout.errors import ConfigError, FaroutError
from farout.runs.run import open_run
from script_loader import load_script

CPU = torch.device("cpu")


def written_out(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Logits of a DenseNet-BC in evaluation mode as its paper has it, in the order of its operations."""

    def normalised(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.relu(F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"]))

    x = F.conv2d(images, state["conv1.weight"], padding=1)
    for block in (1, 2, 3):
        layers = {int(key.split(".")[2]) for key in state if key.startswith(f"block{block}.")}
        for i in sorted(layers):
            at = f"block{block}.layer.{i}"
            y = F.conv2d(normalised(x, f"{at}.bn1"), state[f"{at}.conv1.weight"])
            y = F.conv2d(normalised(y, f"{at}.bn2"), state[f"{at}.conv2.weight"], padding=1)
            x = torch.cat([x, y], 1)
        if block < 3:
            x = F.conv2d(normalised(x, f"trans{block}.bn1"), state[f"trans{block}.conv1.weight"])
            x = F.avg_pool2d(x, 2)
    features = F.avg_pool2d(normalised(x, "bn1"), 8).flatten(1)
    return features @ state["fc.weight"].T + state["fc.bias"]


def network(classes: int = 5, depth: int = 16, growth_rate: int = 4) -> DenseNet:
    """Small, with batch statistics as after training, among them scales of zero and below."""
    torch.manual_seed(0)
    built = DenseNet(depth, growth_rate, classes)
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            with torch.no_grad():
                module.weight[0] = 0
    return built.eval()


def test_densenet_100_12_has_its_published_size_and_the_official_tensors() -> None:
    with torch.device("meta"):
        built = DenseNet(100, 12, 10)
    state = built.state_dict()
    assert sum(p.numel() for p in built.parameters()) == 769_162
    assert sum(not key.endswith("num_batches_tracked") for key in state) == 497
    assert built.feature_dim == 342
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes["trans1.conv1.weight"] == (108, 216, 1, 1)
    assert shapes["trans2.conv1.weight"] == (150, 300, 1, 1)
    assert shapes["block3.layer.15.conv1.weight"] == (48, 330, 1, 1)
    assert shapes["block3.layer.15.conv2.weight"] == (12, 48, 3, 3)
    assert next(iter(state)) == "conv1.weight" and list(state)[-1] == "fc.bias"


@pytest.mark.parametrize("side", [32, 36])
def test_logits_are_those_of_the_definition(side: int) -> None:
    built = network().double()
    images = torch.randn(19, 3, side, side, dtype=torch.float64)  # more than are computed at a time
    expected = written_out(built.state_dict(), images)
    with torch.no_grad():
        torch.testing.assert_close(built(images), expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(built.float()(images.float()).double(), expected, rtol=1e-4, atol=1e-4)
    assert expected.std(0).min() > 1e-3, "the images are told apart"


def test_gradients_of_images_are_those_of_the_definition() -> None:
    built = network().double()
    images = torch.randn(19, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    logits = built(images)
    torch.testing.assert_close(logits, written_out(built.state_dict(), images), rtol=1e-10, atol=1e-10)
    (ours,) = torch.autograd.grad(logits.logsumexp(1).sum(), images)
    (expected,) = torch.autograd.grad(written_out(built.state_dict(), images).logsumexp(1).sum(), images)
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)
    assert expected.abs().max() > 1e-3


def test_gradients_in_evaluation_keep_little() -> None:
    """Of each layer only what it adds is kept: less than a quarter of what training keeps."""
    built, images = network(depth=40), torch.randn(4, 3, 32, 32)
    kept: dict[bool, int] = {}
    for training in (False, True):
        sizes: dict[int, int] = {}

        def pack(value: Tensor, seen: dict[int, int] = sizes) -> Tensor:
            seen[value.data_ptr()] = value.numel()
            return value

        built.train(training)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            built(images.requires_grad_())
        kept[training] = sum(sizes.values())
    assert kept[False] < 0.25 * kept[True]


def test_training_counts_each_batch_once_and_moves_every_weight() -> None:
    built = network().train()
    before = {key: value.clone() for key, value in built.named_parameters()}
    optimiser = torch.optim.SGD(built.parameters(), lr=0.1)
    F.cross_entropy(built(torch.randn(8, 3, 32, 32)), torch.arange(8) % 5).backward()
    optimiser.step()
    assert {int(value) for key, value in built.named_buffers() if key.endswith("num_batches_tracked")} == {1}
    assert not [key for key, value in built.named_parameters() if torch.equal(value, before[key])]


def test_the_trunk_runs_in_bfloat16_where_asked() -> None:
    built, images = network(), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        exact = built.features(images)
        with built.precision(torch.bfloat16):
            rough = built.features(images)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    assert (rough - exact).norm() < 0.05 * exact.norm()


def test_impossible_densenets_are_refused() -> None:
    for depth, growth_rate, compression in ((101, 12, 0.5), (4, 12, 0.5), (40, 0, 0.5), (40, 12, 0.0), (40, 12, 1.5)):
        with pytest.raises(ConfigError, match=r"use 6n|at least 1"):
            DenseNet(depth, growth_rate, 10, compression)
    with pytest.raises(FaroutError, match="pooling window is 8x8"), torch.no_grad():
        network()(torch.zeros(1, 3, 64, 64))


def test_official_files_load_by_their_names_without_counters() -> None:
    source, target = network(), DenseNet(16, 4, 5)
    state = {f"module.{k}": v for k, v in source.state_dict().items() if "num_batches_tracked" not in k}
    load_foreign_state(target, state)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(target.eval()(images), source(images))


# (whose, classes, error in percent as published or as its training log has it, every which test image is looked at)
TRAINED = [("odin", 10, 4.81, 50), ("odin", 100, 22.37, 100), ("oecc", 10, 6.30, 100), ("oecc", 100, 25.04, 100)]


@pytest.mark.data
@pytest.mark.parametrize("case", TRAINED, ids=lambda case: f"{case[0]}{case[1]}")
def test_trained_networks_are_imported_and_as_accurate_as_published(
    packs: Path, data_paths: DataPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: tuple
) -> None:
    source, classes, error, every = case
    file = packs / f"checkpoints/{source}_densenet100_cifar{classes}_fp16.pt"
    words = [str(file), "--id", f"cifar{classes}", "--outputs", str(tmp_path)]
    assert load_script("import_checkpoint").main(words) == 0
    said = capsys.readouterr().out
    assert "stored as float16, taken as float32" in said
    assert "network densenet100, normalisation cifar" in said
    assert "left out" not in said
    run = open_run(tmp_path / f"runs/imported-{file.stem}")
    images = open_dataset(f"cifar{classes}", "test", data_paths).subset(torch.arange(0, 10_000, every))
    outputs = collect(run.model(CPU), run.transform(), images, CPU)
    share = error / 100
    assert 1 - accuracy(outputs) == pytest.approx(share, abs=2 * (share * (1 - share) / len(images)) ** 0.5)
    state = {key: value.double() for key, value in run.model(CPU).state_dict().items()}
    expected = written_out(state, run.transform()(images.images[:2]).double())
    torch.testing.assert_close(outputs.logits[:2].double(), expected, rtol=1e-4, atol=1e-4)
