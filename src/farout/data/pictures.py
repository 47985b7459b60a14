"""Images that a user gives (files, PIL images, tensors, arrays) -> batches of the size that a network was trained on.

What is not of that size is resized, the shorter side to the network's, bilinearly by PIL, and cropped in the centre:
what the papers' transforms do, and what the store does with their image sets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from farout.data.catalogue import dataset_names
from farout.data.decode import ResizeCrop, decoded, naming, read_file
from farout.data.listing import list_images, reaching
from farout.data.paths import default_paths
from farout.errors import FaroutError, printable

Picture: TypeAlias = Tensor | np.ndarray | Image.Image | str | Path
Pictures: TypeAlias = Picture | Sequence[Picture]


def image_files(places: Iterable[str | Path]) -> list[Path]:
    """The files among `places`, and in place of a folder all images below it, in byte order of their names.

    Raises FaroutError for a place that does not exist and for a folder without images.
    """
    found: list[Path] = []
    for place in map(Path, places):
        with reaching(place):
            found += _images_at(place)
    return found


def _images_at(place: Path) -> list[Path]:
    if place.is_dir():
        listing = list_images(place)
        listing.say()
        if not listing.names:
            where = printable(place)
            raise FaroutError(f"{where} is a folder without images: give files, or a folder that holds some")
        return [place / name for name in listing.names]
    if place.is_file():
        return [place]
    what = "no regular file" if place.exists() else "not there"
    named = "" if place.name != str(place) or place.name not in dataset_names(default_paths()) else place.name
    hint = f'; the data set of that name is farout.load_dataset("{named}")' if named else ""
    raise FaroutError(f"{printable(place)} is {what}: give image files, or folders of images{hint}")


def batches(pictures: Pictures, side: int, size: int) -> Iterator[Tensor]:
    """Batches (B, 3, side, side), B <= size: uint8, or float32 in [0, 1] where float tensors were given.

    Takes one picture or a sequence of them, of any sizes: tensors (3, H, W) of uint8, or of floats in [0, 1]; arrays
    (H, W, 3), (3, H, W) or (H, W); PIL images; paths, where a folder stands for the images below it. Or one tensor or
    array of N of them. One channel is grey.

    Raises FaroutError naming the picture (a file by its name) that cannot be read.
    """
    if isinstance(pictures, np.ndarray):
        pictures = channels_first(pictures)
    if isinstance(pictures, Tensor) and pictures.dim() == 4:
        yield from (_sized(pixels(part), side) for part in pictures.split(size) if len(part))
        return
    rest = expanded(pictures)
    while some := list(itertools.islice(rest, size)):
        yield _stacked([_one(picture, side) for picture in some])


def expanded(pictures: Pictures) -> Iterator[Picture]:
    """One picture after the other; paths last until they are read, so that a folder of any size fits."""
    one = isinstance(pictures, Image.Image | str | Path) or getattr(pictures, "ndim", 4) < 4
    listed: Any = [pictures] if one else pictures
    for picture in listed:
        if isinstance(picture, str | Path):
            yield from image_files([picture])
        else:
            yield picture


def channels_first(array: np.ndarray) -> Tensor:
    """Pixels of one picture or of N, (..., H, W, C), (..., C, H, W) or (H, W) with C of 1 or 3, as (..., C, H, W).

    Raises FaroutError for other shapes.
    """
    shape = array.shape
    if array.ndim in (3, 4) and shape[-3] not in (1, 3) and shape[-1] in (1, 3):
        array = np.moveaxis(array, -1, -3)
    elif array.ndim == 2:
        array = array[None]
    elif array.ndim not in (3, 4) or shape[-3] not in (1, 3):
        raise FaroutError(
            "an array of a picture is (H, W, 3) or (3, H, W), a grey one (H, W); of several (N, H, W, 3), grey ones "
            f"(N, H, W, 1); here is one of {shape}"
        )
    return torch.from_numpy(np.array(array))  # a copy, for torch takes neither all strides nor what is read-only


def pixels(images: Tensor | np.ndarray) -> Tensor:
    """(3, H, W) or (B, 3, H, W) of tensors or arrays with 1 or 3 channels, on the CPU: uint8, or float32 in [0, 1].

    Raises FaroutError for other shapes, types and ranges.
    """
    tensor = channels_first(images) if isinstance(images, np.ndarray) else images.detach().cpu()
    if tensor.dim() not in (3, 4) or tensor.shape[-3] not in (1, 3) or 0 in tensor.shape[-2:]:
        raise FaroutError(
            f"pictures are tensors (N, 3, H, W), one is (3, H, W); here is one of shape {tuple(tensor.shape)}"
        )
    tensor = tensor.expand(*tensor.shape[:-3], 3, -1, -1)
    return tensor if tensor.dtype == torch.uint8 else _unit(tensor)


def _one(picture: Any, side: int) -> Tensor:
    """(3, side, side) of one picture."""
    if isinstance(picture, Tensor | np.ndarray):
        return _sized(pixels(picture).unsqueeze(0), side)[0]
    resize_crop = ResizeCrop(side, side)
    if isinstance(picture, Image.Image):
        with naming(getattr(picture, "filename", "") or "an image"):
            return torch.from_numpy(resize_crop(picture).copy())
    if isinstance(picture, str | Path):
        with naming(picture):
            return torch.from_numpy(resize_crop.fit(decoded(read_file(Path(picture)), str(picture))).copy())
    raise FaroutError(f"{type(picture).__name__} is no picture: give tensors, arrays, PIL images or paths")


def _stacked(images: Sequence[Tensor]) -> Tensor:
    """One batch: uint8 only where all are."""
    if len({image.dtype for image in images}) > 1:
        images = [image / 255 if image.dtype == torch.uint8 else image for image in images]
    return torch.stack(list(images))


def _sized(images: Tensor, side: int) -> Tensor:
    """(B, 3, side, side) of (B, 3, H, W); floats are resized by the same filter without rounding."""
    if images.shape[2:] == (side, side):
        return images
    return torch.stack([_resized(image, side) for image in images])


def _unit(images: Tensor) -> Tensor:
    if not images.is_floating_point():
        raise FaroutError(f"pictures of {images.dtype}: give uint8 in 0..255, or floats in [0, 1]")
    images = images.float()
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise FaroutError("float pictures must lie in [0, 1], before any normalisation: that is done here")
    return images


def _resized(image: Tensor, side: int) -> Tensor:
    if image.dtype == torch.uint8:
        return torch.from_numpy(ResizeCrop(side, side)(Image.fromarray(image.permute(1, 2, 0).numpy())).copy())
    from torchvision.transforms import functional as vision

    channels = [vision.resize(Image.fromarray(np.ascontiguousarray(channel)), side) for channel in image.numpy()]
    return torch.from_numpy(np.stack([np.asarray(vision.center_crop(channel, [side])) for channel in channels]))
