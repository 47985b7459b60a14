"""The Triton kernel of views against the whole-batch operations, run by Triton's interpreter where there is no GPU."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from farout.data.colour import Jitter
from farout.data.draws import Draws
from farout.data.views import ViewTransform

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Triton looks at this when it is imported, which torch may have done long before a test could say it.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
runs_kernels = pytest.mark.skipif(DEVICE.type == "cpu" and not INTERPRETED, reason="run by the test of the interpreter")
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.244, 0.262)
TRANSFORM = ViewTransform(MEAN, STD, 2, None, (0.2, 1.0), (0.75, 4 / 3), True, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2)
STATISTICS = torch.tensor([MEAN, STD], device=DEVICE)
SMALL, LARGE, ODD = ((5, 32, 32), (32, 32)), ((3, 40, 30), (12, 12)), ((2, 20, 24), (31, 27))


@pytest.mark.skipif(DEVICE.type == "cuda" or INTERPRETED, reason="the kernels run here")
def test_the_interpreter_runs_the_kernel_of_views() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "s........" in done.stdout  # this one skipped, eight passed


def _images(n: int, height: int, width: int) -> Tensor:
    """Noise, with an image of one colour, a black and a grey one: no chroma, no difference, the edges of the hue."""
    images = torch.randint(0, 256, (n, 3, height, width), generator=torch.Generator().manual_seed(n)).to(torch.uint8)
    images[-1] = images[-1, :1]
    images[0, :, :, : width // 3] = torch.tensor([200, 30, 30], dtype=torch.uint8).view(3, 1, 1)
    images[0, :, : height // 3] = 0
    return images.to(DEVICE)


def _draws(transform: ViewTransform, shape: tuple[int, int, int], n: int | None = None) -> Draws:
    generator = torch.Generator(DEVICE).manual_seed(shape[1])
    return transform.draw(n or 2 * shape[0], *shape[1:], generator, DEVICE)


def _both(images: Tensor, draws: Draws, size: tuple[int, int], n: int) -> tuple[Tensor, Tensor]:
    from farout.data.views_kernel import fits, make_views

    assert fits(images, size)
    whole = TRANSFORM.assembled(images.repeat(n // len(images), 1, 1, 1), draws, size)
    return make_views(images, n, draws, size, STATISTICS), whole


@runs_kernels
@pytest.mark.parametrize(("shape", "size"), [SMALL, LARGE, ODD], ids=["same size", "reduced", "enlarged"])
def test_views_of_the_kernel_are_those_of_whole_batches(shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    ours, whole = _both(_images(*shape), _draws(TRANSFORM, shape), size, 2 * shape[0])
    assert torch.allclose(ours, whole, rtol=0, atol=2e-5)


@runs_kernels
def test_every_order_of_the_four_operations() -> None:
    from itertools import permutations

    orders = torch.tensor(list(permutations(range(4))), device=DEVICE)
    images = _images(24, 16, 16)
    jitter = Jitter(
        torch.linspace(0.6, 1.4, 72, device=DEVICE).view(24, 3), torch.linspace(-0.1, 0.1, 24, device=DEVICE), orders
    )
    ours, whole = _both(images, Draws(None, None, jitter, None), (16, 16), 24)
    assert torch.allclose(ours, whole, rtol=0, atol=2e-5)


@runs_kernels
@pytest.mark.parametrize("kept", ["boxes", "mirrored", "jitter"])
def test_steps_that_are_not_done_are_left_out(kept: str) -> None:
    """One step alone, and two views of floats in [0, 1]."""
    images = _images(3, 20, 20).float() / 255
    nothing = Draws(None, None, None, None)
    draws = replace(nothing, **{kept: getattr(_draws(TRANSFORM, (3, 20, 20)), kept)})
    ours, whole = _both(images, draws, (20, 20), 6)
    assert torch.allclose(ours, whole, rtol=0, atol=2e-5)


@runs_kernels
def test_what_is_not_changed_is_the_normalised_image_to_the_bit() -> None:
    """The whole image as its own crop, factors of 1, a hue of 0, nothing grey; and grey is grey in every channel."""
    images = _images(4, 32, 32)
    boxes = torch.tensor([0, 0, 32, 32], device=DEVICE).expand(4, 4)
    same = torch.ones(4, 3, device=DEVICE)
    jitter = Jitter(same, torch.zeros(4, device=DEVICE), torch.arange(4, device=DEVICE).repeat(4, 1))
    never = torch.zeros(4, dtype=torch.bool, device=DEVICE)
    ours, _ = _both(images, Draws(boxes, never, jitter, never), (32, 32), 4)
    assert torch.equal(ours, TRANSFORM(images))
    ours, _ = _both(images, Draws(None, None, None, ~never), (32, 32), 4)
    pixels = ours * STATISTICS[1].view(3, 1, 1) + STATISTICS[0].view(3, 1, 1)
    assert torch.allclose(pixels[:, 0], pixels[:, 2], atol=1e-6)
