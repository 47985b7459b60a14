"""JEM-k against the official attack's classifier."""

import json
import math
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farout.attacks import RefinedClassifier
from farout.errors import ConfigError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors/vectors_jem_cider.json").read_text())["jem"]
KNOWN = VECTORS["refined_logits"]


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TinyNet(nn.Module):
    """The vectors' network: (N, 1, 2, 2) -> 4 -> 5 -> 3 logits."""

    def forward(self, x: Tensor) -> Tensor:
        known = {key: tensor(value) for key, value in VECTORS["tiny_net"].items() if key.endswith(("weight", "bias"))}
        hidden = F.leaky_relu(F.linear(x.flatten(1), known["hidden_weight"], known["hidden_bias"]), 0.2)
        return F.linear(hidden, known["class_weight"], known["class_bias"])


def cosines(n: int, factor: float, shape: tuple[int, ...], phase: float = 0.0) -> Tensor:
    return torch.cos(factor * torch.arange(1, n + 1, dtype=torch.float64) + phase).view(shape)


def images() -> Tensor:
    return ((cosines(8, 0.9, (2, 1, 2, 2)) + 1) / 2).requires_grad_()


def test_mean_logits_and_their_gradient_are_the_official_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = count(1)
    monkeypatch.setattr(
        "farout.attacks.refined.torch.randn",
        lambda shape, **_: cosines(math.prod(shape), 1.7, tuple(shape), 0.5 * next(draw)),
    )
    classify = RefinedClassifier(
        TinyNet(),
        KNOWN["n_steps_refine"],
        1.0,
        KNOWN["sgld_sigma"],
        copies=KNOWN["n_dup_chains"],
        input_noise=KNOWN["sigma_input_noise"],
    )
    pixels = images()
    logits = classify((pixels - 0.5) / 0.5)
    torch.testing.assert_close(logits, tensor(KNOWN["mean_logits"]), rtol=1e-9, atol=1e-12)
    F.cross_entropy(logits, torch.tensor([0, 2])).backward()
    expected = tensor(KNOWN["grad_of_mean_CE_wrt_image(labels 0,2)"])
    torch.testing.assert_close(pixels.grad, expected, rtol=1e-9, atol=1e-12)
    assert next(draw) == 4  # the input's noise, and one draw for each of two steps


def test_without_noise_and_steps_it_is_the_plain_network() -> None:
    net, pixels = TinyNet(), images()
    classify = RefinedClassifier(net, 0, 1.0, 0.01, copies=5, input_noise=0.0)
    assert classify.copies == 1
    assert torch.equal(classify(pixels), net(pixels))


def test_refinement_descends_the_energy_and_passes_the_gradient_straight_through() -> None:
    net, pixels = TinyNet(), images()
    classify = RefinedClassifier(net, 3, 0.05, 0.0, input_noise=0.0)
    (ours,) = torch.autograd.grad(classify(pixels)[:, 0].sum(), pixels)
    moved = pixels.detach()
    for _ in range(3):
        leaf = moved.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net(leaf).logsumexp(1).sum(), leaf)
        moved = moved + 0.05 * gradient
    moved.requires_grad_()
    (theirs,) = torch.autograd.grad(net(moved)[:, 0].sum(), moved)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert (net(moved).logsumexp(1) > net(pixels).logsumexp(1)).all()


def test_clamps_are_the_run_s_own() -> None:
    classify = RefinedClassifier(TinyNet(), 5, 100.0, 0.0, clamp_images=1.0, input_noise=0.0)
    far = RefinedClassifier(TinyNet(), 5, 100.0, 0.0, input_noise=0.0)
    bound = RefinedClassifier(TinyNet(), 1, 1.0, 0.0, clamp_gradient=1e-9, input_noise=0.0)
    assert float(classify._refined(images()).detach().abs().max()) <= 1 < float(far._refined(images()).detach().max())
    torch.testing.assert_close(bound(images()), TinyNet()(images()), rtol=1e-6, atol=1e-6)


def test_noise_comes_from_the_generator_and_copies_average_it() -> None:
    def logits(copies: int) -> Tensor:
        draw = torch.Generator().manual_seed(3)
        return RefinedClassifier(TinyNet(), 1, 0.1, 0.01, draw, copies=copies, input_noise=0.3)(images()).detach()

    assert torch.equal(logits(5), logits(5))
    many = logits(20_000)
    assert float((many - logits(5)).abs().max()) > 10 * float((many - logits(30_000)).abs().max())


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"copies": 0}, {"input_noise": -0.1}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    settings = {"steps": 1, "step_size": 1.0, "noise_std": 0.01, **wrong}
    with pytest.raises(ConfigError, match="the least are 0, 1 and 0"):
        RefinedClassifier(TinyNet(), **settings)
