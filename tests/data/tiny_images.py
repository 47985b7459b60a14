"""The withdrawn 80 Million Tiny Images as the papers read them: what `ContiguousWindow` is compared with.

`tiny_images.bin` has 3,072 bytes an image in Fortran order:
pixel[row, column, channel] = byte[row + 32 column + 1024 channel].
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

COUNT = 79_302_017
BYTES = 3072


def read_tiny_images(raw: bytes | np.ndarray, indices: np.ndarray | list[int]) -> np.ndarray:
    """Images at `indices` of the file's content (bytes, or a uint8 memory map) as uint8 (N, 3, 32, 32)."""
    data = np.frombuffer(raw, np.uint8) if isinstance(raw, bytes) else raw
    rows = data.reshape(-1, BYTES)[np.asarray(indices)]
    return rows.reshape(-1, 3, 32, 32).transpose(0, 1, 3, 2)  # stored: channel, column, row


def epoch_offsets(seed: int, epochs: int) -> list[int]:
    """The window's start of each epoch, drawn as the official training script does."""
    rng = np.random.RandomState(seed)
    return [int(rng.randint(COUNT)) for _ in range(epochs)]


def image_index(index: int, offset: int, excluded: Container[int], rng: np.random.RandomState) -> int:
    """Which image item `index` of an epoch with this offset is.

    The official modulus is one less than the count. An excluded image (one that CIFAR holds) is replaced by
    random ones until an allowed one is drawn. `excluded` is 0-based; the published list is 1-based.
    """
    image = (index + offset) % (COUNT - 1)
    while image in excluded:
        image = int(rng.randint(COUNT))
    return image
