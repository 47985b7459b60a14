"""Distal adversarials where the way up is known."""

import pytest
import torch
from torch import Tensor

from farout.attacks import distal_adversarials
from farout.errors import ConfigError

WEIGHT = torch.randn(2, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return x.flatten(1) @ WEIGHT.T


def noise() -> Tensor:
    return torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_of_a_linear_classifier_they_are_the_corner_of_the_box() -> None:
    classes = torch.tensor([0, 1, 0, 1, 0, 1])
    found = distal_adversarials(linear, noise(), classes, 200, 0.5)
    up = (WEIGHT[0] - WEIGHT[1] > 0).double().view(3, 2, 2)
    assert torch.equal(found.images[classes == 0], up.expand(3, 3, 2, 2))
    assert torch.equal(found.images[classes == 1], (1 - up).expand(3, 3, 2, 2))
    assert found.confidence.shape == (201, 6) and (found.confidence.diff(dim=0) >= -1e-12).all()
    for at, images in ((0, noise()), (-1, found.images)):
        own = linear(images).softmax(1).gather(1, classes[:, None])[:, 0]
        torch.testing.assert_close(found.confidence[at], own)


def test_a_step_has_its_length_however_steep_the_network() -> None:
    start = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64)
    ends = [
        distal_adversarials(lambda x, s=s: s * linear(x), start, torch.tensor([0]), 3, 0.1).images for s in (1, 1e6)
    ]
    torch.testing.assert_close(*ends)
    assert float(torch.linalg.vector_norm(ends[0] - start)) == pytest.approx(0.3)


def test_settings_that_mean_nothing_are_refused() -> None:
    for steps, size in ((0, 0.1), (3, 0.0)):
        with pytest.raises(ConfigError, match="lead nowhere"):
            distal_adversarials(linear, noise(), torch.zeros(6, dtype=torch.long), steps, size)
