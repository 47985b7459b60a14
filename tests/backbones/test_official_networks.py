"""The networks of JEM and CIDER: the official function of JEM's, sizes, names, and what CIDER's projection gives."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from farout.backbones.foreign import left_out, load_foreign_state
from farout.backbones.plain_wide_resnet import PlainWideResNet
from farout.backbones.projected_resnet import ProjectedResNet18, ProjectedResNet34
from farout.backbones.weight_sets import weight_sets
from farout.errors import ConfigError, FaroutError

FILE = Path(__file__).parents[1] / "vectors" / "vectors_jem_cider.json"
JEM = json.loads(FILE.read_text())["jem"]
WRN = JEM["wrn_10_1"]


def official_state() -> dict[str, Tensor]:
    """The vectors' weights: tensor q (from 0), entries k = 1, 2, ...: s sin(0.7 k + 0.1 q)."""
    state = {}
    for q, (name, shape) in enumerate(WRN["named_parameters"]):
        k = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
        scale = 1.5 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.05
        state[name] = (scale * torch.sin(0.7 * k + 0.1 * q)).view(shape)
    return state


@pytest.fixture(scope="module")
def wrn_10_1() -> PlainWideResNet:
    network = PlainWideResNet(10, 1, 10).double().eval()
    load_foreign_state(network, official_state())
    return network


def test_jems_network_is_the_official_function(wrn_10_1: PlainWideResNet) -> None:
    k = torch.arange(1, 6145, dtype=torch.float64)
    x = torch.cos(0.013 * k).view(2, 3, 32, 32).requires_grad_()
    features = wrn_10_1.features(x)
    logits = wrn_10_1.classify(features)
    log_density = logits.logsumexp(1)
    (gradient,) = torch.autograd.grad(log_density.sum(), x)

    def close(ours: Tensor, theirs: list[float]) -> None:
        torch.testing.assert_close(ours.detach(), torch.tensor(theirs, dtype=torch.float64), rtol=1e-9, atol=1e-12)

    close(features[:, :8], WRN["features_first8"])
    close(features.sum(1), WRN["features_sum"])
    close(logits, WRN["logits"])
    close(log_density, WRN["logsumexp"])
    close(gradient.flatten(1).norm(dim=1), WRN["grad_norm_per_sample"])
    close(gradient[0].flatten()[:4], WRN["grad_first4_pixels_sample0"])


def test_jems_network_has_the_official_names_shapes_and_order(wrn_10_1: PlainWideResNet) -> None:
    ours = [(name, list(p.shape)) for name, p in wrn_10_1.named_parameters()]
    unused = left_out(wrn_10_1, official_state())
    used = [(name, shape) for name, shape in WRN["named_parameters"] if name not in unused]
    assert [shape for _, shape in ours] == [shape for _, shape in used]
    assert [f"f.{name}".replace("f.fc.", "class_output.") for name, _ in ours] == [name for name, _ in used]
    assert unused == ["f.linear.weight", "f.linear.bias", "energy_output.weight", "energy_output.bias"]


def test_wrn_28_10_has_the_official_size() -> None:
    counts = JEM["wrn_28_10_parameter_counts"]
    with torch.device("meta"):
        network = PlainWideResNet(28, 10, 10)
    used = sum(p.numel() for p in network.parameters())
    assert used == counts["used by p(x),p(y|x)"]
    unused = counts["energy_output"] + counts["unused wideresnet.linear"]
    assert used + unused == counts["CCF total (incl. unused energy_output and wideresnet.linear)"]


def test_jems_network_depends_on_neither_mode_nor_batch() -> None:
    torch.manual_seed(0)
    network, x = PlainWideResNet(10, 1, 5), torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        trained = network.train()(x)
        network.eval()
        torch.testing.assert_close(network(x), trained)
        torch.testing.assert_close(network(x[:1]), trained[:1])
    with pytest.raises(ConfigError, match="no Wide ResNet"):
        PlainWideResNet(27, 1, 5)
    with pytest.raises(FaroutError, match="pooling window"):
        network(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("kind", "classes", "parameters"), [(ProjectedResNet18, 10, 11_502_282), (ProjectedResNet34, 100, 21_656_612)]
)
def test_projected_networks_have_ciders_parts(kind: type, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        network = kind(classes)
    assert sum(p.numel() for p in network.parameters()) == parameters
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert shapes["projection.0.weight"] == (512, 512)
    assert shapes["projection.2.weight"] == (128, 512)
    assert shapes["linear.weight"] == (classes, 512)


def test_the_projection_gives_unit_vectors_in_full_precision() -> None:
    torch.manual_seed(0)
    network = ProjectedResNet18(5, width=4, projection_dim=16).eval()
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        features = network.features(x)
        by_hand = network.projection[2](network.projection[0](features).clamp(min=0))  # type: ignore[index]
        expect = by_hand / by_hand.norm(dim=1, keepdim=True)
        embedded = network.embed(x)
        torch.testing.assert_close(embedded, expect)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(network.project(features), embedded)
    linear = ProjectedResNet18(5, width=4, projection_dim=16, projection="linear")
    assert isinstance(linear.projection, nn.Linear)


def test_state_dicts_are_found_in_their_wrappers() -> None:
    state = {"w": torch.zeros(1)}
    for content in (state, {"state_dict": state, "epoch": 3}, {"model": {"state_dict": state}, "loss": 0.1}):
        assert [dict(found.state) for found in weight_sets(content)] == [state]
    (found,) = weight_sets({"model_state_dict": state, "replay_buffer": torch.zeros(3)})
    assert found.state == state
    for content in ({}, {"epoch": 3}, [state], {"state_dict": {"w": 1.0}}, None):
        assert weight_sets(content) == []


def test_a_tensor_that_is_there_twice_is_a_difference() -> None:
    network = PlainWideResNet(10, 1, 5)
    state = {**network.state_dict(), "module.conv1.bias": torch.ones(16)}
    with pytest.raises(FaroutError, match=r"1 unexpected: module\.conv1\.bias"):
        load_foreign_state(network, state)
