"""The Triton kernels of the prototypes against the loop, run by Triton's interpreter where there is no GPU."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from farout.methods.sphere import advance, rank_order

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Triton looks at this when it is imported, which torch may have done long before a test could say it.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
runs_kernels = pytest.mark.skipif(DEVICE.type == "cpu" and not INTERPRETED, reason="run by the test of the interpreter")


@pytest.mark.skipif(DEVICE.type == "cuda" or INTERPRETED, reason="the kernels run here")
def test_the_interpreter_runs_all_of_them() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "s...." in done.stdout  # this one skipped, four passed


def _found(kernel: bool, start: Tensor, points: Tensor, labels: Tensor, momentum: float) -> tuple[Tensor, ...]:
    """Moved prototypes, and the gradients of a weighted sum of them by the old ones and by the points."""
    from farout.methods.sphere_kernel import SphereKernel

    old, new = start.clone().requires_grad_(), points.clone().requires_grad_()
    if kernel:
        moved = SphereKernel.apply(old, new, momentum, labels)
    else:
        moved = advance(old, new, momentum, rank_order(labels, len(start), DEVICE))
    weights = torch.linspace(-1, 2, moved.numel(), device=DEVICE).view_as(moved)
    (moved * weights).sum().backward()
    assert old.grad is not None
    assert new.grad is not None
    return moved.detach(), old.grad, new.grad


@runs_kernels
@pytest.mark.parametrize(("classes", "width", "n", "momentum"), [(5, 12, 40, 0.5), (10, 128, 48, 0.95), (7, 9, 3, 0.0)])
def test_kernels_agree_with_the_loop(classes: int, width: int, n: int, momentum: float) -> None:
    """With classes that are absent, a prototype that is not there yet, and widths that are no power of two."""
    generator = torch.Generator().manual_seed(n)
    start = normalize(torch.randn(classes, width, generator=generator), dim=1)
    start[2] = 0
    points = normalize(torch.randn(n, width, generator=generator), dim=1)
    labels = torch.randint(0, classes - 1, (n,), generator=generator)
    given = start.to(DEVICE), points.to(DEVICE), labels.to(DEVICE)
    for ours, theirs in zip(_found(True, *given, momentum), _found(False, *given, momentum), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@runs_kernels
def test_points_that_cancel_have_no_direction_and_no_gradient() -> None:
    """m = 1/2 and a point opposite to its prototype: the step divides by nothing, and later gradients stop there."""
    start = torch.eye(2, 4, device=DEVICE)
    points = torch.stack([-start[0], start[1]])
    labels = torch.tensor([0, 1], device=DEVICE)
    moved, to_old, to_new = _found(True, start, points, labels, 0.5)
    assert torch.equal(moved[0], torch.zeros(4, device=DEVICE))
    assert not to_old[0].any()
    assert not to_new[0].any()
