"""Validation corruptions of the Outlier Exposure code: OOD sets for choosing settings, never for reporting.

Each takes uint8 (N, 3, H, W) and gives the same; values are rounded, so they differ from the official float
images by at most half a grey level. Uniform noise alone is float and fed as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from farout.data.image_set import Decoded
from farout.data.paths import DataPaths
from farout.data.store import open_dataset


def uniform(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """U[-1, 1] noise of the images' shape, float32, not normalised."""
    return rng.uniform(-1, 1, size=images.shape).astype(np.float32)


def _partners(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(images)  # another image for each, never itself
    return images[(np.arange(n) + rng.integers(1, n, size=n)) % n]


def mean(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean of two images. Averaging after normalisation, as the official code does, is the same."""
    return _to_uint8((images.astype(np.float32) + _partners(images, rng)) / 2)


def geometric(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Geometric mean of two images, pixel by pixel."""
    return _to_uint8(np.sqrt(images.astype(np.float32) * _partners(images, rng)))


def jigsaw(images: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Quadrants moved: the top left rolls by half its rows, the bottom left goes to the top right, the bottom
    right to the bottom left, and the top right, rolled by half its columns, to the bottom right."""
    half = images.shape[2] // 2
    out = images.copy()
    out[..., :half, :half] = np.roll(images[..., :half, :half], half // 2, axis=2)
    out[..., :half, half:] = images[..., half:, :half]
    out[..., half:, :half] = images[..., half:, half:]
    out[..., half:, half:] = np.roll(images[..., :half, half:], half // 2, axis=3)
    return out


def speckle(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """x + x * N(0, 1), clipped, per pixel and channel."""
    return _to_uint8(images * (1 + rng.standard_normal(images.shape, dtype=np.float32)))


def pixelate(images: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Down to a fifth of the side (6 for 32) and back, both with PIL's BOX filter."""
    side = images.shape[2]
    small, box = (int(side * 0.2),) * 2, Image.Resampling.BOX
    pictures = (Image.fromarray(x) for x in images.transpose(0, 2, 3, 1))
    coarse = [np.asarray(p.resize(small, box).resize((side, side), box)) for p in pictures]
    return np.stack(coarse).transpose(0, 3, 1, 2)


def ghost(images: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Channels [green mirrored left to right, blue, red]."""
    return np.stack([images[:, 1, :, ::-1], images[:, 2], images[:, 0]], axis=1)


def invert(images: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Green and blue inverted, red kept."""
    return np.stack([images[:, 0], 255 - images[:, 1], 255 - images[:, 2]], axis=1)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "uniform": uniform,
    "mean": mean,
    "geometric": geometric,
    "jigsaw": jigsaw,
    "speckle": speckle,
    "pixelate": pixelate,
    "ghost": ghost,
    "invert": invert,
}


def corrupted(split: str, paths: DataPaths, kind: str, base: str, seed: int = 0, side: int | None = None) -> Decoded:
    """Corruption `kind` of the same split of data set `base`; `corruption_jigsaw@cifar10` sets another base.

    The official code corrupts the test set of the OTHER CIFAR: cifar100 where cifar10 is in-distribution. `side` is
    handed to the base, where that has a choice.
    """
    source = open_dataset(base, split, paths, side)
    images = KINDS[kind](source.images.numpy(), np.random.default_rng(seed))
    facts = {"built_from": f"{base} {split}", "base_sha256": source.info["sha256"], "seed": seed}
    return Decoded(images, facts=facts)
