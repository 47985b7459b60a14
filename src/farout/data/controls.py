"""Two controls for OOD tables: in-distribution images that were only compressed as JPEG, or only resampled.

A detector that tells them from the originals (AUROC far from 0.5) has learnt the processing, not the objects.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def resampled(images: np.ndarray) -> np.ndarray:
    """Down to half the side and up again by Lanczos, the stand-in packs' filter; uint8 (N, 3, H, W)."""
    height, width = images.shape[2:]

    def there_and_back(picture: Image.Image) -> Image.Image:
        small = picture.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
        return small.resize((width, height), Image.Resampling.LANCZOS)

    pictures = (Image.fromarray(x) for x in np.asarray(images).transpose(0, 2, 3, 1))
    return np.stack([np.asarray(there_and_back(p)) for p in pictures]).transpose(0, 3, 1, 2)


def as_jpeg(images: np.ndarray, quality: int = 75) -> np.ndarray:
    """Through JPEG and back (Pillow's default chroma subsampling, 4:2:0); uint8 (N, 3, H, W)."""

    def encoded(picture: Image.Image) -> np.ndarray:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    pictures = (Image.fromarray(x) for x in np.asarray(images).transpose(0, 2, 3, 1))
    return np.stack([encoded(p) for p in pictures]).transpose(0, 3, 1, 2)
