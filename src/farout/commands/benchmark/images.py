"""The images that the benchmark works on: those of the store or a pack, else random ones."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from farout.commands.benchmark.lines import Place
from farout.data import ImageSet, default_paths, open_dataset
from farout.errors import FaroutError


@dataclass(frozen=True)
class Images:
    """Pixels uint8 (N, 3, 32, 32), labels (N,) of ten classes, and where they are from."""

    pixels: Tensor
    labels: Tensor
    origin: str

    def __len__(self) -> int:
        return len(self.pixels)

    def as_set(self, name: str, first: int = 0, last: int | None = None) -> ImageSet:
        """Some of them as a data set."""
        chosen = slice(first, last)
        classes = tuple(str(number) for number in range(10))
        return ImageSet(name, "train", self.pixels[chosen], self.labels[chosen], classes, False, {"sha256": "0" * 64})


@cache
def images_of(place: Place, name: str, count: int, split: str = "train") -> Images:
    """The first `count` images of a set, or so many random ones where it is not here (and for a quick look)."""
    if place.size != "quick":
        try:
            found = open_dataset(name, split, default_paths())
        except FaroutError:
            pass
        else:
            assert isinstance(found.images, Tensor) and found.labels is not None
            return Images(found.images[:count].clone(), found.labels[:count] % 10, f"{name} ({split})")
    generator = torch.Generator().manual_seed(len(name))
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.randint(0, 10, (count,), generator=generator), "random images")
