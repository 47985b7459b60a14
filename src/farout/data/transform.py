"""Normalisation and batched augmentation on the device. A transform is stored with the run that used it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from farout.data.image_set import ImageSet
from farout.errors import ConfigError, FaroutError

CHUNK = 2048  # images counted at a time


class Transform:
    """uint8 images -> network input, with the flips and crops of training.

    Args:
        mean, std: per channel, over [0, 1].
        flip: horizontal flip with probability one half (training).
        crop_padding: pixels of border from which a crop of the original size is drawn (training; 0: none).
        outlier_augmentation: what outliers get: the same (crop-then-flip, the official order for them, and the ID
            images' flip-then-crop are one distribution, so both share one path), flips alone, whatever `flip` says of
            the ID images, or nothing.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        flip: bool,
        crop_padding: int,
        outlier_augmentation: Literal["same", "flip", "none"] = "same",
    ) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError("transform.mean and transform.std need three values each, those of std above 0")
        if crop_padding < 0:
            raise ConfigError(f"transform.crop_padding={crop_padding} must not be negative")
        self.mean = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1)
        self.flip, self.crop_padding, self.outlier_augmentation = flip, crop_padding, outlier_augmentation
        self._on: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def check_side(self, side: int) -> None:
        """Raises ConfigError where images of this side cannot be augmented so: a border wider than the image itself."""
        if self.crop_padding > side:
            raise ConfigError(f"transform.crop_padding={self.crop_padding}: give at most the images' side, {side}")

    def __call__(self, images: Tensor, raw: bool = False) -> Tensor:
        """Test-time input: (B, C, H, W) uint8 or floats in [0, 1] -> float32. `raw` values pass unchanged."""
        if raw:
            return images.to(torch.float32)
        # A tensor of our own, in place from here on: fresh memory costs a CPU more than what is computed in it.
        scaled = images.to(torch.float32, copy=True)
        if images.dtype == torch.uint8:
            scaled.div_(255)
        mean, std = self._statistics(images.device)
        return scaled.sub_(mean).div_(std)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation there; copied once, since a copy from the host makes it wait for the device."""
        if device not in self._on:
            self._on[device] = self.mean.to(device), self.std.to(device)
        return self._on[device]

    def augmented(self, images: Tensor, generator: torch.Generator, outliers: bool = False) -> Tensor:
        """Training input: random flips and crops drawn from `generator` (on the images' device), then normalised.

        Padding happens on pixels, before normalisation, so the border is black as in the official transforms.
        """
        if not outliers or self.outlier_augmentation == "same":
            flip, padding = self.flip, self.crop_padding
        else:
            flip, padding = self.outlier_augmentation == "flip", 0
        return self(random_crop_flip(images, padding, flip, generator))


class AsGiven(Transform):
    """For input that is normalised already: passes it as it is.

    Args:
        std: (C,) what the normalisation divided by, over [0, 1]; scores that step on the image ask for it.
    """

    def __init__(self, std: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        super().__init__([0.0] * 3, [1.0] * 3, flip=False, crop_padding=0)
        self.std = torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1)

    def __call__(self, images: Tensor, raw: bool = False) -> Tensor:
        """(B, C, H, W) -> float32."""
        return images.to(torch.float32)


def channel_statistics(image_set: ImageSet) -> tuple[list[float], list[float]]:
    """(mean, standard deviation) of each channel over all pixels of a set of uint8 images, on the scale [0, 1].

    Raises FaroutError for noise, which is fed without normalisation.
    """
    if image_set.raw:
        raise FaroutError(f"{image_set.name} is noise that is fed as it is: it is never normalised")
    counts = torch.zeros(3, 256, dtype=torch.float64)
    for start in range(0, len(image_set), CHUNK):
        for channel, values in enumerate(image_set.images[start : start + CHUNK].transpose(0, 1)):
            counts[channel] += torch.bincount(values.flatten(), minlength=256)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = counts @ levels / counts.sum(1)
    variance = counts @ levels**2 / counts.sum(1) - mean**2
    return mean.tolist(), variance.clamp(min=0).sqrt().tolist()


def random_crop_flip(
    images: Tensor, padding: int, flip: bool, generator: torch.Generator, reflect: bool = False
) -> Tensor:
    """Each image (C, H, W) of a batch gets its own crop offset and its own flip.

    The border is black, or with `reflect` the image mirrored at its outermost pixels.
    """
    if padding == 0 and not flip:
        return images
    n, device = len(images), images.device
    mirrored = torch.rand(n, 1, device=device, generator=generator) < 0.5 if flip else None
    offsets = torch.randint(0, 2 * padding + 1, (2, n, 1), device=device, generator=generator) if padding else None
    way = cut_by_copying if device.type == "cpu" else cut_by_gathering
    return way(images, padding, mirrored, offsets, reflect)


def cut_by_gathering(
    images: Tensor, padding: int, mirrored: Tensor | None, offsets: Tensor | None, reflect: bool
) -> Tensor:
    """One gather for a whole batch, for devices that should not be waited for.

    Args:
        images: (n, C, H, W).
        mirrored: (n, 1), which crops are flipped; None: none.
        offsets: (2, n, 1), rows and columns at which crops begin in the padded images; None: no crop.
    """
    n, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(n, height)
    columns = torch.arange(width, device=images.device).expand(n, width)
    if mirrored is not None:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    if offsets is not None:
        images = images if reflect else torch.nn.functional.pad(images, (padding,) * 4)
        rows, columns = rows + offsets[0], columns + offsets[1]
        if reflect:
            rows, columns = mirrored_index(rows - padding, height), mirrored_index(columns - padding, width)
    # One gather along flattened pixels, the same in every channel: three times as quick as indexing four axes.
    pixels = (rows.view(n, height, 1) * images.shape[3] + columns.view(n, 1, width)).view(n, 1, height * width)
    return images.flatten(2).gather(2, pixels.expand(n, channels, -1)).view(n, channels, height, width)


def cut_by_copying(
    images: Tensor, padding: int, mirrored: Tensor | None, offsets: Tensor | None, reflect: bool
) -> Tensor:
    """The same on a CPU, image by image: rows of pixels are copied, which takes a quarter of a gather's time."""
    n, _, height, width = images.shape
    source = images.numpy()
    if offsets is not None and reflect:
        source = np.pad(source, ((0, 0), (0, 0), (padding, padding), (padding, padding)), mode="reflect")
    elif offsets is not None:
        source = torch.nn.functional.pad(images, (padding,) * 4).numpy()
    flips = np.zeros(n, bool) if mirrored is None else mirrored.flatten().numpy()
    tops, lefts = np.zeros((2, n), int) if offsets is None else offsets.flatten(1).numpy()
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    for out, image, flipped, top, left in zip(result.numpy(), source, flips, tops, lefts, strict=True):
        window = image[:, top : top + height, left : left + width]
        out[:] = window[:, :, ::-1] if flipped else window
    return result


def mirrored_index(index: Tensor, size: int) -> Tensor:
    """Where an index from -(size - 1) to 2 (size - 1) comes to lie within [0, size), mirrored at the edges."""
    return (size - 1) - ((size - 1) - index.abs()).abs()
