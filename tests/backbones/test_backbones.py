"""Contract, initialisation, pooling and configuration of the networks, and weights of other code bases."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from farout.backbones import Backbone, load_foreign_state
from farout.backbones.allconv import AllConv
from farout.backbones.cifar_resnet import CifarResNet
from farout.backbones.plain_wide_resnet import PlainWideResNet
from farout.backbones.resnet import ResNet18, ResNet34
from farout.backbones.wide_resnet import WideResNet
from farout.config.coerce import component
from farout.errors import ConfigError, FaroutError

CONF = Path(__file__).parents[2] / "conf" / "backbone"
CONFIGS = sorted(CONF.glob("*.yaml"))
FILE = Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small_networks() -> list[Backbone]:
    torch.manual_seed(0)
    return [WideResNet(10, 1, 5), ResNet18(5, width=4), ResNet34(5, width=4), CifarResNet(8, 5), AllConv(5)]


@pytest.mark.parametrize("network", small_networks(), ids=lambda network: type(network).__name__)
def test_of_any_trunk_only_the_named_parts_and_the_head_train(network: Backbone) -> None:
    last = list(network.trunk_parts)[-1]
    network.set_trainable([last])
    training = {name.partition(".")[0] for name, value in network.named_parameters() if value.requires_grad}
    assert training == {last, network.head_name}
    with pytest.raises(ConfigError, match=rf"there is no {network.head_name}, only .*{last}"):
        network.set_trainable([network.head_name])


@pytest.mark.parametrize("network", small_networks(), ids=lambda network: type(network).__name__)
def test_frozen_statistics_stay_and_training_normalises_as_evaluation_does(network: Backbone) -> None:
    for name, value in network.named_buffers():
        if name.endswith(("mean", "var")):
            value.uniform_(0.5, 1.5)
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.set_freeze_statistics(True)
    images = torch.randn(4, 3, 32, 32)
    dropouts = [part for part in network.modules() if isinstance(part, nn.Dropout)]
    assert network.train().training
    for part in dropouts:
        part.eval()
    trained = network.features(images)
    trained.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert all(value.grad is not None for name, value in network.named_parameters() if network.head_name not in name)
    torch.testing.assert_close(trained, network.eval().features(images))

    network.set_freeze_statistics(False)
    network.train().features(images)
    moved = {name for name, value in network.named_buffers() if not torch.equal(value, before[name])}
    assert moved == before.keys()


@pytest.mark.parametrize("path", [p for p in CONFIGS if "freeze_statistics" in p.read_text()], ids=lambda p: p.stem)
def test_every_backbone_file_that_offers_it_freezes_all_its_statistics(path: Path) -> None:
    spec = component({**yaml.safe_load(path.read_text()), "freeze_statistics": True}, "backbone", ("num_classes",))
    network = spec.build(num_classes=7).train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    with torch.no_grad():
        network.features(torch.randn(2, 3, 32, 32))
    assert before and all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_what_has_no_batch_norm_has_no_statistics_to_freeze() -> None:
    with pytest.raises(ConfigError, match="has no batch norm"):
        PlainWideResNet(10, 1, 5).set_freeze_statistics(True)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_backbone_file_builds_a_network(path: Path) -> None:
    spec = component(yaml.safe_load(path.read_text()), "backbone", supplied=("num_classes",))
    assert spec.name == path.stem
    network = spec.build(num_classes=7).eval()
    with torch.no_grad():
        features = network.features(torch.zeros(1, 3, 32, 32))
        logits = network(torch.zeros(1, 3, 36, 36))
    assert features.shape == (1, network.feature_dim)
    assert logits.shape == (1, network.num_classes) == (1, 7)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: CifarResNet(20, 10), 269_722),
        (lambda: CifarResNet(56, 10), 853_018),
        (lambda: ResNet18(10), 11_173_962),
        (lambda: ResNet34(10), 21_282_122),
    ],
    ids=["resnet20", "resnet56", "resnet18", "resnet34"],
)
def test_parameter_counts(network: type[Backbone], parameters: int) -> None:
    assert sum(p.numel() for p in network().parameters()) == parameters


@pytest.mark.parametrize("network", small_networks(), ids=lambda n: type(n).__name__)
def test_initialisation(network: Backbone) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            std = math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels))
            assert module.weight.std().item() == pytest.approx(std, rel=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == 1)
            assert torch.all(module.bias == 0)
    assert torch.all(network.head.bias == 0)
    bound = 1 / math.sqrt(network.feature_dim)
    assert 0.8 * bound < network.head.weight.abs().max().item() <= bound


def test_wide_resnet_initial_spread_is_the_official_one() -> None:
    modules = dict(WideResNet(40, 2, 10).named_modules())
    for name, shape, std, _ in json.loads(FILE.read_text())["networks"]["init_std_expected"]:
        weight = modules[name].weight
        assert isinstance(weight, Tensor)
        assert list(weight.shape) == shape
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()))


def test_precision_holds_inside_alone_and_ends_with_an_error_too() -> None:
    network = ResNet18(10, width=4)
    with network.precision(torch.bfloat16):
        with pytest.raises(KeyboardInterrupt), network.precision(None):
            assert network.autocast_dtype is None
            raise KeyboardInterrupt
        assert network.autocast_dtype == torch.bfloat16
    assert network.autocast_dtype is None


@pytest.mark.parametrize("network", small_networks(), ids=lambda n: type(n).__name__)
def test_head_stays_in_float32_under_autocast(network: Backbone) -> None:
    network.eval()
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        exact = network.features(x)
        with network.precision(torch.bfloat16):
            features, whole = network.features(x), network(x)
        assert features.dtype == torch.float32
        assert not torch.equal(features, exact)  # the trunk did run in bfloat16
        assert (features - exact).norm() < 0.05 * exact.norm()
        with torch.autocast("cpu", dtype=torch.bfloat16):  # not even a caller's autocast reaches the head
            logits = network.classify(features)
        assert logits.dtype == torch.float32
        expect = features @ network.head.weight.T + network.head.bias
        torch.testing.assert_close(logits, expect)
        torch.testing.assert_close(whole, expect)


@pytest.mark.parametrize(("width", "turned"), [(2, False), (8, True)])
def test_networks_too_thin_for_channels_last_do_without(width: int, turned: bool) -> None:
    torch.manual_seed(0)
    network = ResNet18(3, width)
    images = torch.rand(4, 3, 32, 32)
    network(images).logsumexp(1).sum().backward()
    expected = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    network.zero_grad()
    network.to_channels_last()
    assert network.layer2[0].conv1.weight.is_contiguous(memory_format=torch.channels_last) == turned
    network(images.contiguous(memory_format=torch.channels_last)).logsumexp(1).sum().backward()
    for parameter, before in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, before, rtol=1e-3, atol=1e-4)


def test_float64_stays_float64() -> None:
    network = CifarResNet(8, 5).double().eval()
    assert network(torch.zeros(1, 3, 32, 32, dtype=torch.float64)).dtype == torch.float64


def test_wide_resnet_ignores_the_edge_that_its_window_misses() -> None:
    network = WideResNet(10, 1, 5).eval()
    x = torch.randn(1, 3, 36, 36)
    with torch.no_grad():
        maps = network.block3(network.block2(network.block1(network.conv1(x))))
        expect = torch.relu(network.bn1(maps))[:, :, :8, :8].mean((2, 3))
        assert maps.shape[-2:] == (9, 9)
        torch.testing.assert_close(network.features(x), expect)


@pytest.mark.parametrize("side", [28, 64])
def test_images_that_do_not_fit_the_window_are_refused(side: int) -> None:
    with pytest.raises(FaroutError, match="pooling window is 8x8"):
        WideResNet(10, 1, 5)(torch.zeros(1, 3, side, side))


@pytest.mark.parametrize("side", [28, 32, 64])
def test_residual_networks_take_any_size(side: int) -> None:
    for network in (ResNet18(5, width=4).eval(), CifarResNet(8, 5).eval()):
        assert network(torch.zeros(1, 3, side, side)).shape == (1, 5)


def test_option_a_shortcut_subsamples_and_pads_with_zeros() -> None:
    block = CifarResNet(8, 5).layer2[0]
    x = torch.randn(2, 16, 8, 8)
    shortcut = block._shortcut(x)
    assert shortcut.shape == (2, 32, 4, 4)
    assert torch.equal(shortcut[:, 8:24], x[:, :, ::2, ::2])
    assert not shortcut[:, :8].any()
    assert not shortcut[:, 24:].any()


def test_dropout_acts_in_training_only() -> None:
    network = WideResNet(10, 2, 5, dropout=0.5)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(network(x), network(x))
        network.eval()
        assert torch.equal(network(x), network(x))


def test_impossible_networks_are_refused() -> None:
    for build in (
        lambda: WideResNet(41, 2, 10),
        lambda: WideResNet(40, 2, 10, norm="layer"),
        lambda: CifarResNet(21, 10),
        lambda: AllConv(10, variant="mnist"),
    ):
        with pytest.raises(ConfigError, match=r"use 6n|is batch|choose one of"):
            build()
    with pytest.raises(FaroutError, match="num_classes=0"):
        CifarResNet(8, 0)


def test_foreign_weights_load_with_a_prefix_and_without_counters() -> None:
    source, target = CifarResNet(8, 5), CifarResNet(8, 5)
    state = {f"module.{k}": v for k, v in source.state_dict().items() if "num_batches_tracked" not in k}
    load_foreign_state(target, state)
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


def test_foreign_weights_that_do_not_fit_are_listed_and_nothing_is_copied() -> None:
    network = CifarResNet(8, 5)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = {key: torch.zeros_like(value) for key, value in before.items()}
    state["linear.weight"] = torch.zeros(10, 64)
    state["extra.weight"] = state.pop("conv1.weight")
    with pytest.raises(FaroutError) as error:
        load_foreign_state(network, state)
    message = str(error.value)
    assert "1 missing: conv1.weight" in message
    assert "1 unexpected: extra.weight" in message
    assert "1 shape: linear.weight (10, 64) in the file, (5, 64) in the network" in message
    assert "\n" not in message
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())


def packs() -> Path:
    """The folder of real image packs: FAROUT_PACKS, or where the repository's neighbours keep it."""
    return Path(os.environ.get("FAROUT_PACKS", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.data
@pytest.mark.parametrize("depth", [20, 56])
def test_trained_checkpoints_fit(depth: int) -> None:
    path = packs() / "checkpoints" / f"cifar10_resnet{depth}.th"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    network = CifarResNet(depth, 10)
    load_foreign_state(network, state)
    assert torch.equal(network.layer3[0].bn2.running_var, state["module.layer3.0.bn2.running_var"])
    with pytest.raises(FaroutError, match="missing" if depth == 20 else "unexpected"):
        load_foreign_state(CifarResNet(76 - depth, 10), state)
