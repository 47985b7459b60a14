"""The networks of the official code, filled with deterministic weights, give the official logits."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mnist_convnet import MnistConvNet
from torch import Tensor, nn

from farout.backbones import Backbone, load_foreign_state
from farout.backbones.allconv import AllConv
from farout.backbones.wide_resnet import WideResNet

FILE = Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json"
VECTORS = json.loads(FILE.read_text())["networks"]
CASES = {case["name"]: case for case in VECTORS["cases"]}
NETWORKS: dict[str, Callable[[], Backbone]] = {
    "wrn40_2_c10": lambda: WideResNet(40, 2, 10, dropout=0.3),
    "wrn40_2_c100": lambda: WideResNet(40, 2, 100, dropout=0.3),
    "wrn16_4_c10_svhn": lambda: WideResNet(16, 4, 10, dropout=0.4),
    "wrn40_2_c10_on_36x36": lambda: WideResNet(40, 2, 10, dropout=0.3),
    "allconv_c10": lambda: AllConv(10),
    "allconv_c100": lambda: AllConv(100),
    "mnist_convnet": lambda: MnistConvNet(10),
    "tin_wrn40_2_c200": lambda: WideResNet(40, 2, 200, dropout=0.3, pool=16),
    "tin_allconv_c200": lambda: AllConv(200, variant="tiny_imagenet"),
}


def filled(state: dict[str, Tensor], gain: float) -> dict[str, Tensor]:
    """The fill rule of the vectors: one seeded normal draw a tensor, counted along the state dict."""
    out = {}
    for i, (key, tensor) in enumerate(state.items()):
        if not tensor.is_floating_point():
            out[key] = tensor
            continue
        q = torch.from_numpy(np.random.RandomState(1000 + i).normal(0, 1, tuple(tensor.shape)))
        if key.endswith("running_var"):
            q = 1 + 0.5 * q.abs()
        elif tensor.dim() > 1:
            q = q * (gain / tensor[0].numel()) ** 0.5
        elif key.endswith("weight"):
            q = 1 + 0.1 * q
        else:
            q = 0.1 * q
        out[key] = q
    return out


def test_every_network_of_the_vectors_is_built() -> None:
    assert NETWORKS.keys() == CASES.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_match_the_official_network(name: str) -> None:
    case = CASES[name]
    network = NETWORKS[name]().double().eval()
    network.load_state_dict(filled(network.state_dict(), case["gain"]))
    x = torch.from_numpy(np.random.RandomState(999).normal(0, 1, case["input_shape"]))
    with torch.no_grad():
        logits = network(x)
    np.testing.assert_allclose(logits.numpy(), case["expect_logits"], rtol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_match_the_official_network(name: str) -> None:
    case, network = CASES[name], NETWORKS[name]()
    modules = list(network.modules())
    assert sum(p.numel() for p in network.parameters()) == case["n_params"]
    assert len(list(network.parameters())) == case["n_param_tensors"]
    assert sum(isinstance(m, nn.Conv2d) for m in modules) == case["n_conv"]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in modules) == case["n_bn"]


def test_wide_resnet_has_the_official_names_and_order() -> None:
    state = WideResNet(40, 2, 10).state_dict()
    assert list(state) == VECTORS["wrn40_2_state_dict_order"]
    for key, shape in CASES["wrn40_2_c10"]["keys_shapes"]:
        assert list(state[key].shape) == shape


def test_allconv_weights_of_the_official_code_load() -> None:
    network = AllConv(10)
    names = VECTORS["allconv_state_dict_order"]
    assert len(names) == len(network.state_dict())
    official = dict(zip(names, (torch.zeros_like(t) for t in network.state_dict().values()), strict=True))
    load_foreign_state(network, official)
    assert all(not p.any() for p in network.parameters())
