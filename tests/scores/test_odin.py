"""ODIN against the official function's values and against pytorch-ood."""

import json
from pathlib import Path

import pytest
import torch
from pytorch_ood.detector import ODIN as PeerODIN
from pytorch_ood.detector import odin_preprocessing
from tiny_world import STD, World
from torch import Tensor

from farout.errors import ConfigError, FaroutError
from farout.scores import Outputs
from farout.scores.input_noise import input_gradient, signed_step
from farout.scores.odin import ODIN

FILE = Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json"
VECTORS = json.loads(FILE.read_text())["odin"]
INPUT = {key: torch.tensor(value, dtype=torch.float64) for key, value in VECTORS["input"].items()}


class Linear:
    """The vectors' network: a linear layer on pixels."""

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def classify(self, features: Tensor) -> Tensor:
        return features @ INPUT["W"].T + INPUT["b"]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"T{case['T']:g}-{case['noise']:g}")
def test_official_values(case: dict) -> None:
    ours = ODIN(case["T"], case["noise"]).on_images(Linear(), INPUT["x"], STD)
    torch.testing.assert_close(-ours, torch.tensor(case["score"], dtype=torch.float64), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("temperature", "epsilon"), [(1000, 0.0014), (1000, 0), (1, 0.0048), (10, 0.002)])
def test_pytorch_ood(world: World, temperature: float, epsilon: float) -> None:
    peer = PeerODIN(world.network, eps=epsilon, temperature=temperature, norm_std=STD.tolist())
    ours = ODIN(temperature, epsilon).on_images(world.network, world.images, STD)
    torch.testing.assert_close(-ours, peer.predict(world.images), rtol=1e-9, atol=0)


def test_a_pixel_without_gradient_moves_as_in_the_official_code_and_stays_in_pytorch_ood() -> None:
    """The official code turns the gradient into 2 * (g >= 0) - 1, which has no zero; torch.sign has one."""
    images = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    net = lambda x: torch.stack([x[:, 0].sum((1, 2)), 1 - x[:, 0].sum((1, 2))], 1)  # noqa: E731
    loss = lambda x: torch.nn.functional.cross_entropy(net(x), net(x).argmax(1))  # noqa: E731
    ours = signed_step(images, input_gradient(loss, images), 0.1, torch.tensor([1.0, 0.5, 0.25]))
    theirs = odin_preprocessing(net, images, eps=0.1, temperature=1, norm_std=[1.0, 0.5, 0.25])
    torch.testing.assert_close(ours[:, 0], theirs[:, 0], rtol=0, atol=0)
    assert (theirs[:, 1:] == 0).all()
    torch.testing.assert_close(ours[0, :, 0, 0], torch.tensor([-0.1, -0.2, -0.4], dtype=torch.float64))


def test_without_a_step_no_image_is_needed(world: World) -> None:
    score = ODIN(100, 0)
    assert score.needs == ()
    by_images = score.on_images(world.network, world.images, STD)
    torch.testing.assert_close(score(world.outputs), by_images, rtol=1e-12, atol=0)
    with pytest.raises(FaroutError, match="odin needs the images"):
        ODIN()(world.outputs)


def test_inference_mode_around_it_and_no_traces_in_the_network(world: World) -> None:
    score = ODIN(1, 0.002)
    world.network.zero_grad(set_to_none=True)
    expected = score.on_images(world.network, world.images, STD)
    with torch.inference_mode():
        images = world.images.clone()  # an inference tensor
        torch.testing.assert_close(score.on_images(world.network, images, STD), expected, rtol=1e-9, atol=0)
    assert not expected.requires_grad
    assert all(parameter.grad is None for parameter in world.network.parameters())


def test_images_whose_logits_differ_little_keep_different_scores() -> None:
    logits = torch.zeros(2, 10)
    logits[:, 0] = torch.tensor([5.0, 5.0001])
    a, b = ODIN(1000, 0)(Outputs(logits, logits))
    assert a < b  # float32 softmax gives 0.1004 + 0.1e-7 steps: equal


def test_grid() -> None:
    assert ODIN().candidates() == []
    grid = ODIN(tune=True).candidates()
    assert len(grid) == 40 and {candidate.name for candidate in grid} == {"odin"}
    settings = {(candidate.temperature, candidate.epsilon) for candidate in grid}
    assert len(settings) == 40 and (1000, 0.0014) in settings and (1, 0.0048) in settings
    assert grid[0].facts() == {"temperature": 1000, "epsilon": 0} and not grid[0].candidates()
    assert [candidate.needs for candidate in grid[:2]] == [(), ("images",)]


def test_names_and_errors() -> None:
    assert ODIN().name == "odin" and ODIN(10, 0).name == "odin_t10_e0" and ODIN(1000, 0.002).name == "odin_t1000_e0.002"
    with pytest.raises(ConfigError, match="temperature"):
        ODIN(0)
    with pytest.raises(ConfigError, match="epsilon"):
        ODIN(epsilon=-0.1)
