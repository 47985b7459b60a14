"""GEN against its definition in NumPy and against pytorch-ood."""

import numpy as np
import pytest
import torch
from pytorch_ood.detector import GEN as PeerGEN
from scipy.special import softmax
from torch import Tensor

from farout.errors import ConfigError
from farout.scores import Outputs
from farout.scores.gen import GEN

LOGITS = 2 * torch.randn(60, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def scored(score: GEN, logits: Tensor = LOGITS) -> Tensor:
    return score(Outputs(logits, logits))


@pytest.mark.parametrize(("gamma", "m"), [(0.1, 100), (0.1, 5), (0.7, 1), (1.0, 12)])
def test_its_definition(gamma: float, m: int) -> None:
    p = np.sort(softmax(LOGITS.numpy(), axis=1), axis=1)[:, -m:]
    expected = -(p**gamma * (1 - p) ** gamma).sum(1)
    np.testing.assert_allclose(scored(GEN(gamma, m)), expected, rtol=1e-12)


@pytest.mark.parametrize(("gamma", "m"), [(0.1, 100), (0.1, 5), (2.0, 3)])
def test_pytorch_ood_has_the_mean_of_the_terms(gamma: float, m: int) -> None:
    theirs = PeerGEN(None, gamma=gamma, M=m).predict_logits(LOGITS)
    torch.testing.assert_close(-scored(GEN(gamma, m)) / min(m, 12), theirs, rtol=1e-9, atol=0)


def test_confident_images_are_told_apart_where_rounding_and_clamping_would_blur_them() -> None:
    """p_1 is 1 in float64 as well; its distance from 1 is what the score sees."""
    gaps = torch.tensor([40.0, 60.0, 90.0], dtype=torch.float64)
    logits = torch.stack([gaps, *[torch.zeros(3)] * 2], 1)
    tail = (-gaps).exp()
    expected = -((2 * tail) ** 0.1 + 2 * tail**0.1)
    torch.testing.assert_close(scored(GEN(), logits), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(scored(GEN(), logits.float()), expected, rtol=1e-12, atol=0)
    assert len(PeerGEN(None).predict_logits(logits).unique()) == 1


def test_names_and_errors() -> None:
    assert [GEN().name, GEN(0.5).name, GEN(0.1, 10).name] == ["gen", "gen_g0.5_m100", "gen_g0.1_m10"]
    assert GEN(0.5, 10).facts() == {"gamma": 0.5, "m": 10} and GEN().needs == ()
    with pytest.raises(ConfigError, match="gamma=0"):
        GEN(0.0)
    with pytest.raises(ConfigError, match="m=0"):
        GEN(m=0)
