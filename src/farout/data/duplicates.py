"""Exact duplicates between sets, by a hash of each image's bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from farout.data.image_set import ImageSet
from farout.errors import UnwritableError
from farout.files import write_atomically

CHUNK = 4096  # images read at a time


def image_hashes(image_set: ImageSet) -> np.ndarray:
    """One 16-byte hash an image, (N,) of dtype V16; kept beside the stored images after the first time."""
    cache = None if image_set.folder is None else image_set.folder / "hashes.npy"
    if cache is not None and (known := _kept(cache, len(image_set))) is not None:
        return known
    digests = []
    for start in range(0, len(image_set), CHUNK):
        rows = np.ascontiguousarray(image_set.images[start : start + CHUNK].numpy())
        digests += [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]
    hashes = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
    if cache is not None:
        with suppress(UnwritableError):  # a store that is only read: hashed again next time
            write_atomically(cache, lambda file: np.save(file, hashes))
    return hashes.view("V16")[:, 0]


def _kept(cache: Path, n: int) -> np.ndarray | None:
    """The hashes that were kept, where they can be those of n images."""
    try:
        kept = np.load(cache)
    except (OSError, ValueError, EOFError):
        return None
    return kept.view("V16")[:, 0] if kept.shape == (n, 16) and kept.dtype == np.uint8 else None


def find_duplicates(reference: Iterable[ImageSet], other: ImageSet) -> np.ndarray:
    """Sorted int64 indices of the images of `other` that also occur in a set of `reference`: drop these."""
    known = {value for image_set in reference for value in image_hashes(image_set).tolist()}
    hits = (i for i, value in enumerate(image_hashes(other).tolist()) if value in known)
    return np.fromiter(hits, np.int64)
