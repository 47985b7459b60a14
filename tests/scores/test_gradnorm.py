"""GradNorm's closed form against the gradient that it stands for, and against pytorch-ood."""

import pytest
import torch
from pytorch_ood.detector import GradNorm as PeerGradNorm
from tiny_world import unlabelled
from torch import Tensor, nn
from torch.nn import functional as F

from farout.errors import ConfigError
from farout.scores import Head
from farout.scores.gradnorm import GradNorm

GENERATOR = torch.Generator().manual_seed(0)
LAYER = nn.Linear(9, 5).double()
for parameter in LAYER.parameters():
    nn.init.normal_(parameter, generator=GENERATOR)
FEATURES = torch.randn(30, 9, generator=GENERATOR, dtype=torch.float64)  # of both signs
OURS = unlabelled(FEATURES, Head(LAYER.weight, LAYER.bias))


def norm_of_gradient(loss: Tensor) -> float:
    (gradient,) = torch.autograd.grad(loss, LAYER.weight)
    return float(gradient.abs().sum())


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_it_is_the_norm_of_the_gradient(temperature: float) -> None:
    """Of the divergence, as the paper has it; of the cross-entropy summed over C classes, as its code, C times that."""
    found = GradNorm(temperature)(OURS)
    for row, value in zip(FEATURES, found.tolist(), strict=True):
        uniform = torch.full((5,), 0.2, dtype=torch.float64)
        divergence = F.kl_div(F.log_softmax(LAYER(row) / temperature, 0), uniform, reduction="sum")
        assert value == pytest.approx(norm_of_gradient(divergence), rel=1e-12)
        summed = -F.log_softmax(LAYER(row) / temperature, 0).sum()
        assert 5 * value == pytest.approx(norm_of_gradient(summed), rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_pytorch_ood(temperature: float) -> None:
    peer = PeerGradNorm(LAYER, param_filter=lambda name: name == "weight", temperature=temperature)
    torch.testing.assert_close(-GradNorm(temperature)(OURS), peer.predict(FEATURES), rtol=1e-12, atol=0)


def test_an_undecided_image_has_none() -> None:
    flat = Head(torch.zeros(5, 9, dtype=torch.float64), torch.ones(5, dtype=torch.float64))
    assert GradNorm()(unlabelled(FEATURES, flat)).abs().max() < 1e-14


def test_names_and_errors() -> None:
    assert [GradNorm().name, GradNorm(2).name] == ["gradnorm", "gradnorm_t2"] and GradNorm().needs == ()
    assert GradNorm(2).facts() == {"temperature": 2}
    with pytest.raises(ConfigError, match="temperature=0"):
        GradNorm(0)
