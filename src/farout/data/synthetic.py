"""Generated OOD sets: noise of the Outlier Exposure paper (float32, fed as it is) and of ODIN, JEM's interpolations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from farout.data.image_set import Decoded
from farout.data.paths import DataPaths
from farout.data.store import open_dataset
from farout.errors import FaroutError

CHUNK = 2000  # a legacy RandomState gives the same stream in pieces, and float64 intermediates stay small
Draw = Callable[[int, np.random.RandomState, int], np.ndarray]


def gaussian(n: int, rng: np.random.RandomState, side: int = 32) -> np.ndarray:
    """N(0, 0.5^2) clipped to [-1, 1]; (n, 3, side, side) float32."""
    return np.clip(rng.normal(scale=0.5, size=(n, 3, side, side)), -1, 1).astype(np.float32)


def rademacher(n: int, rng: np.random.RandomState, side: int = 32) -> np.ndarray:
    """-1 or +1 with equal chance; (n, 3, side, side) float32."""
    return (rng.binomial(1, 0.5, size=(n, 3, side, side)) * 2 - 1).astype(np.float32)


def blobs(n: int, rng: np.random.RandomState, side: int = 32) -> np.ndarray:
    """Bernoulli(0.7) pixels, blurred over rows, columns AND colours, below 0.75 set to 0; scaled to [-1, 1].

    The blur (sigma 1.5, nearest border, cut at 4 sigma) runs across the colour axis in the official code too.
    """
    from scipy.ndimage import gaussian_filter

    pixels = rng.binomial(1, 0.7, size=(n, side, side, 3)).astype(np.float32)
    for image in pixels:
        image[:] = gaussian_filter(image, sigma=1.5, mode="nearest", truncate=4.0)
    pixels[pixels < 0.75] = 0
    return pixels.transpose(0, 3, 1, 2) * 2 - 1


def odin_gaussian(n: int, rng: np.random.RandomState, side: int = 32) -> np.ndarray:
    """N(0.5, 1) clipped to [0, 1], as grey levels that the network's transform normalises; (n, 3, side, side) uint8.

    facebookresearch/odin (code/calData.py, testGaussian) draws them anew, in float, each time. Rounding to 255 levels
    moves a value by at most 1/510, noise of deviation 0.0011 on noise of 0.43; the 62 % that were clipped stay 0 or 1.
    """
    return _grey_levels(rng.normal(0.5, 1, (n, 3, side, side)))


def odin_uniform(n: int, rng: np.random.RandomState, side: int = 32) -> np.ndarray:
    """U[0, 1], as grey levels that the network's transform normalises; (n, 3, side, side) uint8.

    facebookresearch/odin (code/calData.py, testUni). Rounding as for `odin_gaussian`; 0 and 255 are half as frequent as
    other levels.
    """
    return _grey_levels(rng.random_sample((n, 3, side, side)))


def _grey_levels(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


KINDS: dict[str, Draw] = {"gaussian": gaussian, "rademacher": rademacher, "blobs": blobs}
KINDS |= {"odin_gaussian": odin_gaussian, "odin_uniform": odin_uniform}


def noise(split: str, paths: DataPaths, kind: str, count: int, seed: int, side: int = 32) -> Decoded:
    """`count` images drawn from `seed`: the catalogue's generator for noise of any of `KINDS`."""
    rng = np.random.RandomState(seed)
    parts = [KINDS[kind](min(CHUNK, count - start), rng, side) for start in range(0, count, CHUNK)]
    return Decoded(np.concatenate(parts), facts={"built_from": "generator", "seed": seed})


def interpolation(
    split: str,
    paths: DataPaths,
    base: str,
    noise_std: float,
    batch_size: int = 100,
    seed: int = 0,
    side: int | None = None,
) -> Decoded:
    """Means of two images of `base`, as JEM's evaluation makes them from its ID test set (wgrathwohl/JEM).

    It shuffles the set, and each batch is averaged with the one before: n - batch_size images. Both halves carry
    noise of `noise_std` (on [-1, 1]) by then and the mean gets as much again, a variance of 1.5 noise_std^2; the
    network's own transform adds noise_std^2, and the rest is here. Values are rounded to grey levels. `side` is handed
    to the base, where that has a choice. Raises FaroutError where the base has no more than one batch.
    """
    source = open_dataset(base, split, paths, side)
    if len(source) <= batch_size:
        raise FaroutError(f"{base} ({split}) has {len(source)} images: interpolating needs more than {batch_size}")
    rng = np.random.default_rng(seed)
    shuffled = source.images.numpy()[rng.permutation(len(source))]
    means = (shuffled[batch_size:].astype(np.float32) + shuffled[:-batch_size]) / 2
    means += rng.standard_normal(means.shape, dtype=np.float32) * (noise_std / np.sqrt(2) * 127.5)
    facts = {"built_from": f"{base} {split}", "base_sha256": source.info["sha256"], "seed": seed}
    return Decoded(np.rint(np.clip(means, 0, 255)).astype(np.uint8), facts=facts)
