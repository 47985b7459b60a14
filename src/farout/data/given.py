"""Images of a user's own, in the forms that PyTorch's users have them -> batches of a network's input.

Pictures (files, PIL images, arrays and tensors of pixels) go through the user's transform, one by one. What a data set
or a DataLoader gives as a float tensor has been through its own transform, and is the network's input as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from farout.data.decode import decoded, naming, read_file, shown
from farout.data.image_set import ImageSet
from farout.data.pictures import expanded, pixels
from farout.errors import FaroutError

Preprocess: TypeAlias = Callable[[Any], Any]  # a picture -> the network's input (C, H, W)
Given: TypeAlias = Any  # pictures (`farout.data.pictures`), an ImageSet, a Dataset, or a DataLoader


@dataclass(frozen=True)
class Inputs:
    """A batch of a network's input, (B, C, H, W) float32, and labels (B,) int64 where there are any."""

    images: Tensor
    labels: Tensor | None = None


def input_batches(given: Given, transform: Preprocess | None, size: int) -> Iterator[Inputs]:
    """Batches of the network's input, in the order of what was given.

    Args:
        given: pictures, an array of them (N, H, W, 3) or (N, 3, H, W), a folder, an ImageSet, a torch Dataset of images
            or of (image, label), or a DataLoader of batches of those.
        transform: of a PIL image, or of a float tensor (3, H, W) in [0, 1] where such are given; None: only float
            tensors are given, which are the network's input as they are.
        size: B of what comes one by one.

    Raises FaroutError for what is none of these, and naming the picture that cannot be read or transformed.
    """
    if isinstance(given, Iterator):
        raise FaroutError("images are read more than once: give a list or a data set, not a generator")
    if isinstance(given, DataLoader):
        yield from map(_of_loader, given)
        return
    rest = _items(given)
    while some := list(itertools.islice(rest, size)):
        images = [_transformed(image, transform, asis) for image, _, asis in some]
        labels = [label for _, label, _ in some]
        yield Inputs(_stacked(images), _joined(labels))


def number_of(given: Given) -> int | None:
    """How many images there are, where that is known before they are read."""
    given = given.dataset if isinstance(given, DataLoader) else given
    return None if isinstance(given, str | Path | Image.Image) or not hasattr(given, "__len__") else len(given)


Item: TypeAlias = tuple[Any, Any, bool]  # image, label or None, whether it is the network's input already


def _items(given: Given) -> Iterator[Item]:
    if isinstance(given, ImageSet):
        for index in range(len(given)):
            label = None if given.labels is None else given.labels[index]
            yield given.images[index : index + 1][0], label, given.raw
    elif isinstance(given, Dataset):
        yield from map(_of_dataset, _each(given))
    else:
        for picture in expanded(given):
            yield picture, None, False


def _each(dataset: Any) -> Iterator[Any]:
    """A map-style data set has a length, and need not end a loop by itself; an iterable one has only the loop."""
    if isinstance(dataset, IterableDataset):
        yield from dataset
        return
    for index in range(len(dataset)):
        yield dataset[index]


def _of_dataset(item: Any) -> Item:
    image, label = item[:2] if isinstance(item, tuple | list) and len(item) > 1 else (item, None)
    image = image[0] if isinstance(image, tuple | list) and len(image) == 1 else image
    return image, label, isinstance(image, Tensor) and image.is_floating_point()


def _of_loader(batch: Any) -> Inputs:
    images, labels = batch[:2] if isinstance(batch, tuple | list) and len(batch) > 1 else (batch, None)
    images = images[0] if isinstance(images, tuple | list) and len(images) == 1 else images
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.dim() != 4:
        raise FaroutError(
            "a DataLoader has to give float tensors (B, C, H, W), the network's input: give its data set a transform "
            "that ends in one, or give the data set itself"
        )
    return Inputs(images.float(), _joined(list(labels)) if isinstance(labels, Tensor | np.ndarray | list) else None)


def _transformed(image: Any, transform: Preprocess | None, asis: bool) -> Tensor:
    """(C, H, W) float32, the network's input."""
    if asis:
        return image.float()
    if transform is None:
        if isinstance(image, Tensor) and image.is_floating_point():
            return image.float()
        raise FaroutError(f"{type(image).__name__} is not the network's input: give the transform that makes it so")
    return _tensor_of(transform, _pictured(image))


def _pictured(image: Any) -> Any:
    """A PIL image in RGB of any picture; float pixels stay a tensor, for PIL has no such colours."""
    if isinstance(image, Tensor | np.ndarray):
        image = pixels(image)
        return Image.fromarray(image.permute(1, 2, 0).numpy()) if image.dtype == torch.uint8 else image
    if isinstance(image, Image.Image):
        with naming(getattr(image, "filename", "") or "an image"):
            return shown(image)
    if isinstance(image, str | Path):
        with naming(image):
            return decoded(read_file(Path(image)), str(image))
    raise FaroutError(f"{type(image).__name__} is no picture: give tensors, arrays, PIL images or paths")


def _tensor_of(transform: Preprocess, picture: Any) -> Tensor:
    try:
        made = torch.as_tensor(transform(picture))
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        what = "a float tensor" if isinstance(picture, Tensor) else "a PIL image"
        reason = " ".join(str(error).split())
        raise FaroutError(f"the transform does not take {what} of size {_size(picture)}: {reason}") from None
    if made.dim() != 3 or not made.is_floating_point():
        raise FaroutError(f"the transform makes {made.dtype} {tuple(made.shape)}: it has to make floats (C, H, W)")
    return made.float()


def _size(picture: Any) -> str:
    height, width = picture.shape[-2:] if isinstance(picture, Tensor) else picture.size[::-1]
    return f"{height} x {width}"


def _stacked(images: list[Tensor]) -> Tensor:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise FaroutError(f"images of different shapes {sorted(shapes)}: let the transform resize or crop to one size")
    return torch.stack(images)


def _joined(labels: list[Any]) -> Tensor | None:
    """(B,) int64; None where an image has no label that is a whole number."""
    if not labels or any(label is None or isinstance(label, str | bytes) for label in labels):
        return None
    try:
        found = torch.stack([torch.as_tensor(label) for label in labels])
    except (TypeError, ValueError, RuntimeError):
        return None
    whole = found.dim() == 1 and not found.is_floating_point() and not found.is_complex()
    return found.to(torch.int64) if whole else None


def normalisation_std(transform: Any) -> tuple[float, ...] | None:
    """What a torchvision transform divides by: the standard deviations of the last Normalize in it; None: none seen."""
    parts: Iterable[Any] = getattr(transform, "transforms", None) or ()
    found = [std for part in parts if (std := normalisation_std(part)) is not None]
    if found:
        return found[-1]
    std = getattr(transform, "std", None)
    return None if std is None else tuple(float(value) for value in torch.as_tensor(std).flatten())
