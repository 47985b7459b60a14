"""JEM's training of log p(x) learns densities that can be checked: its samples pass a two-sample test.

The test is the kernel two-sample test (Gretton et al., 2012) with Gaussian kernels of three widths and the null
distribution from permutations, at the level of 1 %. Controls must fail it: the noise that chains start from, and
chains through the trained network as cold as the paper's, whose noise is far below sqrt(2 * step size): they sink
into the modes.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from farout.engine.fit import Optimisation, fit
from farout.methods import JEM, Batch

LEVEL, PERMUTATIONS, N = 0.01, 499, 300
Draw = Callable[[int, torch.Generator], Tensor]


def rings(n: int, generator: torch.Generator) -> Tensor:
    """Two circles of radius 0.4 and 0.9, blurred; (n, 2)."""
    inner = torch.rand(n, generator=generator) < 0.5
    radius = torch.where(inner, 0.4, 0.9) + 0.06 * torch.randn(n, generator=generator)
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def mixture(n: int, generator: torch.Generator) -> Tensor:
    """Four Gaussians of unequal weight; (n, 2)."""
    centres = torch.tensor([[-0.6, -0.6], [0.6, -0.5], [0.0, 0.7], [0.7, 0.6]])
    which = torch.multinomial(torch.tensor([0.3, 0.3, 0.2, 0.2]), n, True, generator=generator)
    return centres[which] + 0.25 * torch.randn(n, 2, generator=generator)


class Plane(nn.Module):
    """A small network on points of the plane; the square keeps its density from running off to infinity."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(4 * x) - 2 * x.square().sum(1, keepdim=True)


def p_value(a: Tensor, b: Tensor, seed: int = 0) -> float:
    """Of the hypothesis that points (n, 2) and (n, 2) come from one distribution."""
    both, n = torch.cat([a, b]).double(), len(a)
    squares = torch.cdist(both, both).square()
    kernel = sum((torch.exp(-squares / (2 * width**2)) for width in (0.1, 0.3, 1.0)), torch.zeros(()))
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.arange(2 * n), *(torch.randperm(2 * n, generator=generator) for _ in range(PERMUTATIONS))]
    signs = torch.ones(len(orders), 2 * n, dtype=torch.float64)
    for row, order in enumerate(orders):
        signs[row, order[n:]] = -1
    statistics = ((signs @ kernel) * signs).sum(1)
    return float((statistics >= statistics[0]).double().mean())


def jem(steps: int, step_size: float, noise: float) -> JEM:
    return JEM(1.0, 0.0, 0.0, False, 2000, 0.02, steps, step_size, noise, None, None, "fp32", 0)


@pytest.mark.parametrize(
    ("draw", "steps", "step_size", "updates"), [(mixture, 20, 0.01, 700), (rings, 20, 0.001, 1500)]
)
def test_samples_of_the_trained_energy_are_like_held_out_data(
    draw: Draw, steps: int, step_size: float, updates: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    data, held_out = draw(20_000, generator), draw(N, generator)

    def batches(step: int) -> dict[str, Batch]:
        rows = torch.randint(0, len(data), (256,), generator=torch.Generator().manual_seed(step))
        return {"unlabelled": Batch(data[rows]), "labelled": Batch(data[rows[:1]], torch.zeros(1, dtype=torch.long))}

    torch.manual_seed(0)
    model, method = Plane(), jem(steps, step_size, math.sqrt(2 * step_size))
    optimisation = Optimisation(0.002, 0.0001, nesterov=False, weight_decay=0.0, algorithm="adam")
    fit(model, method, batches, optimisation, updates)

    start, noise = method.replay_buffer.images[:N], torch.rand(N, 2) * 2 - 1
    assert p_value(draw(N, generator), held_out) > LEVEL, "the test itself is sound"
    assert p_value(method.refine(model, start, 100), held_out) > LEVEL
    assert p_value(noise, held_out) <= LEVEL
    assert p_value(jem(steps, 0.01, 0.0001).refine(model, start, 300), held_out) <= LEVEL
