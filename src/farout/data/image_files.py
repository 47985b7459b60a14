"""Images that stay in their files: decoded when read, by threads (Pillow works outside Python's lock)."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as vision

from farout.data.crop import random_crop_boxes
from farout.data.decode import Handling, decoded, naming, read_file
from farout.data.streams import stable_seed
from farout.data.views import ViewTransform


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
        handling: how a picture becomes (3, side, side) at test time.
        digest: hash of the files' content, their names and their order.
    """

    root: Path
    names: Sequence[str]
    handling: Handling
    digest: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        side = self.handling.crop or 0
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
                out[place] = self.handling.fit(picture)

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


class CroppedViews:
    """Training input of image files: each view a random part of the ORIGINAL picture, then changed on the device.

    Part and reduction are what RandomResizedCrop does to a Pillow image (bilinear, with antialiasing, whole grey
    levels). What is drawn follows from (seed, name, step, row) alone. The next step is decoded while this one trains.

    Args:
        images, transform: the files; crop, size and number of views, and what else happens to a view.
        rows_of: the rows (B,) of a step, on the host.
        seed, name: what chance is drawn from.
    """

    def __init__(
        self, images: ImageFiles, transform: ViewTransform, rows_of: Callable[[int], Tensor], seed: int, name: str
    ) -> None:
        self.images, self.transform, self.rows_of = images, transform, rows_of
        self.seed, self.name = seed, name
        self.side = transform.size or images.shape[-1]
        self._ahead: tuple[int, np.ndarray, list[Future[None]]] | None = None

    def __call__(self, step: int, generator: torch.Generator) -> Tensor:
        """(views * B, 3, side, side) on the generator's device, all first views, then all second ones."""
        ready, self._ahead = self._ahead, None
        if ready is None or ready[0] != step:
            ready = self._begun(step)
        self._ahead = self._begun(step + 1)
        for part in ready[2]:
            part.result()
        images = torch.from_numpy(ready[1]).flatten(0, 1).to(generator.device)
        return self.transform.augmented(images, generator, cropped=True)

    def _begun(self, step: int) -> tuple[int, np.ndarray, list[Future[None]]]:
        """The step, room for its views (views, B, 3, side, side), and the work that fills it."""
        rows = self.rows_of(step).tolist()
        out = np.empty((self.transform.views, len(rows), 3, self.side, self.side), np.uint8)
        parts = [pool().submit(self._crop, out[:, place], row, step) for place, row in enumerate(rows)]
        return step, out, parts

    def _crop(self, out: np.ndarray, row: int, step: int) -> None:
        """Fill (views, 3, side, side) with random parts of one picture."""
        picture = self.images.picture(row)
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self.name, "crop", step, row))
        scale, ratio = self.transform.crop_scale, self.transform.crop_ratio
        boxes = random_crop_boxes(len(out), picture.height, picture.width, scale, ratio, generator, torch.device("cpu"))
        for view, (top, left, height, width) in zip(out, boxes.tolist(), strict=True):
            part = vision.resized_crop(picture, top, left, height, width, [self.side, self.side])
            view[:] = np.asarray(part).transpose(2, 0, 1)
