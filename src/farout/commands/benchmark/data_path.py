"""The data path: batches gathered and augmented on the device, against torchvision's transforms in worker processes."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from farout.commands.benchmark.images import Images, images_of
from farout.commands.benchmark.lines import AnyLine, Different, Line, Place, Side, require_close
from farout.commands.benchmark.timing import Turn, in_turns
from farout.config.compose import compose_settings
from farout.data.streams import EpochShuffle
from farout.data.transform import Transform
from farout.engine.batches import DeviceBatches, Stream

PADDING = 4
NAME = "crop, flip and normalise"


class Torchvision(Dataset[tuple[Tensor, int]]):
    """Images as CIFAR's usual loaders give them: one at a time, through Pillow and a chain of transforms.

    Args:
        images: uint8 (N, 3, H, W).
        labels: (N,).
        chain: a transform of a Pillow image.
        views: how many of each image, stacked; 1: not stacked.
    """

    def __init__(self, images: Tensor, labels: Tensor, chain: Any, views: int = 1) -> None:
        self.images = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        self.labels, self.chain, self.views = labels.tolist(), chain, views

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = transforms.functional.to_pil_image(self.images[index])
        made = [self.chain(picture) for _ in range(self.views)]
        return made[0] if self.views == 1 else torch.stack(made), self.labels[index]


def crop_and_flip(transform: Transform) -> transforms.Compose:
    """torchvision's chain for what `transform` does to training images."""
    return transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomCrop(32, padding=PADDING),
            transforms.ToTensor(),
            transforms.Normalize(transform.mean.flatten().tolist(), transform.std.flatten().tolist()),
        ]
    )


def lines(place: Place) -> Iterator[AnyLine]:
    """Ours against a DataLoader with 0, 2 and 4 workers; on a GPU both end there."""
    size = place.pick(32, 128, 128)
    images = images_of(place, "cifar10", place.pick(4 * size, 32 * size, 64 * size))
    transform: Transform = compose_settings(["transform=cifar"]).transform.build()
    order = EpochShuffle(len(images), size, 0, "labelled", place.device)
    numbers = torch.arange(len(images))
    ours = DeviceBatches({"labelled": Stream(images.pixels, numbers, None, order)}, transform, 0, place.device, True)
    loaders = {
        workers: DataLoader(
            Torchvision(images.pixels, numbers, crop_and_flip(transform)), size, shuffle=True, num_workers=workers,
            persistent_workers=workers > 0, pin_memory=place.device.type == "cuda",
        )
        for workers in (0, 2, 4)
    }  # fmt: skip
    agreement = _agree(images, transform, ours)
    steps = len(images) // size
    tasks = {"ours": Turn(lambda: [ours(step) for step in range(steps)], steps)}
    tasks |= {str(workers): Turn(partial(_read, loader, place.device), steps) for workers, loader in loaders.items()}
    seconds = in_turns(tasks, place.rounds, place.device)
    for workers in loaders:
        baseline = Side.of(f"torchvision in a DataLoader with {workers} workers", seconds[str(workers)])
        scale = f"a batch of {size} images, {images.origin}"
        yield Line("data", NAME, scale, Side.of("batched", seconds["ours"]), baseline, agreement, place.rounds)


def _read(loader: DataLoader[Any], device: torch.device) -> None:
    for images, labels in loader:
        images.to(device, non_blocking=True)
        labels.to(device, non_blocking=True)


def _agree(images: Images, transform: Transform, ours: DeviceBatches) -> str:
    """Test-time images are equal; every training image of either is one of its original's crops and flips."""
    few = images.pixels[:8]
    plain = transforms.Compose(crop_and_flip(transform).transforms[2:])
    theirs = torch.stack([plain(transforms.functional.to_pil_image(image)) for image in few])
    require_close("normalised images", transform(few), theirs, 1e-5)
    batch = ours(0)["labelled"]
    chain = crop_and_flip(transform)
    for made, number in zip(batch.images[:8].cpu(), batch.targets[:8].tolist(), strict=True):
        original = images.pixels[number]
        for image in (made, chain(transforms.functional.to_pil_image(original))):
            if not _is_made_of(image, original, transform):
                raise Different("an augmented image is no crop of its original: nothing is compared")
    return "both give crops and flips of the same images"


def _is_made_of(image: Tensor, original: Tensor, transform: Transform) -> bool:
    """Whether a normalised image (3, H, W) is a crop of the padded original or of its mirror image."""
    padded = F.pad(original, (PADDING,) * 4)
    windows = torch.cat([side.unfold(1, 32, 1).unfold(2, 32, 1).flatten(1, 2) for side in (padded, padded.flip(2))], 1)
    apart = transform(windows.transpose(0, 1)) - image
    return bool(apart.abs().flatten(1).amax(1).min() < 1e-4)
