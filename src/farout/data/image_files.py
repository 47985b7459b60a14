"""Images that stay in their files: decoded when read, by threads (Pillow works outside Python's lock)."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from farout.data.decode import ResizeCrop, decoded, naming, read_file


@functools.cache
def pool() -> ThreadPoolExecutor:
    """The threads that decode: one for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(cores, "decode")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """What a tensor (N, 3, side, side) of uint8 is to evaluation, with every image in a file of its own.

    Attributes:
        root: folder that holds them.
        names: paths below it, one an image.
        resize_crop: how a picture becomes (3, side, side) at test time.
        digest: hash of the files' content, their names and their order.
    """

    root: Path
    names: Sequence[str]
    resize_crop: ResizeCrop
    digest: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        side = self.resize_crop.crop or 0
        return len(self), 3, side, side

    def __getitem__(self, rows: int | slice | Tensor) -> Tensor:
        """uint8 (B, 3, side, side) of these rows, or (3, side, side) of one; raises FaroutError naming the file."""
        if isinstance(rows, int):
            return self[torch.tensor([rows])][0]
        chosen = torch.arange(len(self))[rows].tolist()
        out = np.empty((len(chosen), *self.shape[1:]), np.uint8)

        def fill(place: int, row: int) -> None:
            picture = self.picture(row)
            with naming(self.root / self.names[row]):
                out[place] = self.resize_crop.fit(picture)

        list(pool().map(fill, range(len(chosen)), chosen))
        return torch.from_numpy(out)

    def picture(self, row: int) -> Image.Image:
        """One image of the size it has, upright and as RGB; raises FaroutError naming a file that cannot be read."""
        path = self.root / self.names[row]
        with naming(path):
            return decoded(read_file(path), path.name)

    def take(self, rows: Tensor) -> ImageFiles:
        """The images at `rows` (B,) int64, in that order; reads none."""
        digest = hashlib.sha256(self.digest.encode() + rows.numpy().tobytes()).hexdigest()
        return replace(self, names=[self.names[row] for row in rows.tolist()], digest=digest)

    def numpy(self) -> np.ndarray:
        """All of them in memory, (N, 3, side, side)."""
        return self[:].numpy()
