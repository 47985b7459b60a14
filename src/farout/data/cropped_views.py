"""Random parts of pictures that stay in their files, for training: cut from the original, at its own resolution."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from farout.data.crop import random_crop_boxes
from farout.data.image_files import ImageFiles, pool
from farout.data.streams import stable_seed
from farout.data.views import ViewTransform


class Sharing(Protocol):
    """How several processes share a batch (`farout.engine.processes.Processes`)."""

    @property
    def rows(self) -> slice:
        """Which rows of a batch are this process's."""

    def whole(self, part: Tensor, rows: int) -> Tensor:
        """All rows (B, ...), given this process's."""


@dataclass(frozen=True)
class Begun:
    """A step whose pictures are being decoded: its number, images in all, views (b, V, 3, S, S) of this process's."""

    step: int
    rows: int
    views: np.ndarray
    work: list[Future[None]]


class CroppedViews:
    """Training input of image files: each view a random part of the ORIGINAL picture, then changed on the device.

    Part and reduction are what RandomResizedCrop does to a Pillow image (bilinear, with antialiasing, whole grey
    levels). What is drawn follows from (seed, name, step, row) alone. The next step is decoded while this one trains.

    Args:
        images, transform: the files; crop, size and number of views, and what else happens to a view.
        rows_of: the rows (B,) of a step, on the host.
        seed, name: what chance is drawn from.
        sharing: where several processes decode a batch together, which rows are this one's, and how all are had.
    """

    def __init__(
        self,
        images: ImageFiles,
        transform: ViewTransform,
        rows_of: Callable[[int], Tensor],
        seed: int,
        name: str,
        sharing: Sharing,
    ) -> None:
        self.images, self.transform, self.rows_of = images, transform, rows_of
        self.seed, self.name, self.sharing = seed, name, sharing
        self.side = transform.size or images.shape[-1]
        self._ahead: Begun | None = None

    def __call__(self, step: int, generator: torch.Generator) -> Tensor:
        """(views * B, 3, side, side) on the generator's device, all first views, then all second ones."""
        ready, self._ahead = self._ahead, None
        if ready is None or ready.step != step:
            ready = self._begun(step)
        self._ahead = self._begun(step + 1)
        for part in ready.work:
            part.result()
        images = self.sharing.whole(torch.from_numpy(ready.views).to(generator.device), ready.rows)
        return self.transform.augmented(images.transpose(0, 1).flatten(0, 1), generator, cropped=True)

    def _begun(self, step: int) -> Begun:
        rows = self.rows_of(step)
        own = rows[self.sharing.rows].tolist()
        views = np.empty((len(own), self.transform.views, 3, self.side, self.side), np.uint8)
        work = [pool().submit(self._crop, out, row, step) for out, row in zip(views, own, strict=True)]
        return Begun(step, len(rows), views, work)

    def _crop(self, out: np.ndarray, row: int, step: int) -> None:
        """Fill (views, 3, side, side) with random parts of one picture."""
        from torchvision.transforms import functional as vision

        picture = self.images.picture(row)
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self.name, "crop", step, row))
        scale, ratio = self.transform.crop_scale, self.transform.crop_ratio
        boxes = random_crop_boxes(len(out), picture.height, picture.width, scale, ratio, generator, torch.device("cpu"))
        for view, (top, left, height, width) in zip(out, boxes.tolist(), strict=True):
            part = vision.resized_crop(picture, top, left, height, width, [self.side, self.side])
            view[:] = np.asarray(part).transpose(2, 0, 1)
