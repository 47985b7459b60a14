"""Random parts of pictures that stay in their files, for training: cut from the original, at its own resolution."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import torch
from torch import Tensor

from farout.data.crop import random_crop_boxes
from farout.data.image_files import ImageFiles, pool
from farout.data.streams import stable_seed
from farout.data.views import ViewTransform


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
        from torchvision.transforms import functional as vision

        picture = self.images.picture(row)
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self.name, "crop", step, row))
        scale, ratio = self.transform.crop_scale, self.transform.crop_ratio
        boxes = random_crop_boxes(len(out), picture.height, picture.width, scale, ratio, generator, torch.device("cpu"))
        for view, (top, left, height, width) in zip(out, boxes.tolist(), strict=True):
            part = vision.resized_crop(picture, top, left, height, width, [self.side, self.side])
            view[:] = np.asarray(part).transpose(2, 0, 1)
