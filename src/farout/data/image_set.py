"""ImageSet: the form in which every data set reaches the rest of the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from farout.data.image_files import ImageFiles


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of one data set.

    `images` is (N, 3, H, W): uint8 for pictures, float32 for noise that the papers feed as it is (`raw`).
    It is a view of a memory-mapped file (copy on write), so opening a set costs nothing until rows are read; or it
    stands for image files that are decoded when rows are read (`ImageFiles`).
    `labels` is int64 (N,) or None. `info` is JSON-able and is recorded with every result.
    """

    name: str
    split: str
    images: torch.Tensor | ImageFiles
    labels: torch.Tensor | None
    classes: tuple[str, ...]
    raw: bool
    info: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None  # where the store keeps it; None for a subset

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> ImageSet:
        """The rows at `indices`, in that order; `info["of"]` keeps how many there were."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        labels = None if self.labels is None else self.labels[rows]
        info = {**self.info, "n": len(rows), "of": self.info.get("of", len(self))}
        images = self.images[rows] if isinstance(self.images, torch.Tensor) else self.images.take(rows)
        return replace(self, images=images, labels=labels, info=info, folder=None)


@dataclass
class Decoded:
    """What a reader or generator hands to the store: plain arrays, and facts for `ImageSet.info`."""

    images: np.ndarray  # (N, 3, H, W), uint8 or float32
    labels: np.ndarray | None = None  # (N,)
    classes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    names: list[str] | None = None  # file names, where the choice of files is part of the data set
    origin: dict[str, Any] | None = None  # of a pack: what it is known by, for the store's own use
