"""From image sets to the batches that a step sees: gathered, augmented and normalised on the device."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from farout.data.cropped_views import CroppedViews
from farout.data.image_files import ImageFiles
from farout.data.streams import stable_seed
from farout.data.transform import Transform
from farout.data.views import ViewTransform
from farout.engine.processes import ALONE, Processes
from farout.methods import Batch

# Images a batch of `DeviceBatches.train_images`. No setting: what is summed over that pass must not depend on one.
PASS_SIZE = 500


class Order(Protocol):
    """Which rows a step sees, as a function of the step."""

    def indices(self, step: int) -> Tensor:
        """Row numbers (B,)."""


@dataclass
class Stream:
    """Images uint8 (N, 3, H, W) and labels (N,) on the device, the rows that take part, and their order.

    Of image files all of it but the decoded batch stays on the host.
    """

    images: Tensor | ImageFiles
    labels: Tensor | None
    rows: Tensor | None
    order: Order
    outliers: bool = False
    raw: bool = False

    def at(self, step: int) -> Tensor:
        """The rows (B,) of the images that a step sees."""
        rows = self.order.indices(step)
        return rows if self.rows is None else self.rows[rows.to(self.rows.device)]


class DeviceBatches:
    """`batches(step)` for `fit`: the same step always gives the same batches.

    The uint8 images stay on the device for the whole run (on a CPU, memory-mapped); nothing is decoded, and no worker
    processes exist. Only image files (`ImageFiles`) are decoded for every step, by threads.

    Of several `processes` each makes the whole batch, which costs little beside what follows; but each decodes only
    its share of image files, and has the others' pixels from them.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        transform: Transform,
        seed: int,
        device: torch.device,
        channels_last: bool,
        processes: Processes = ALONE,
    ) -> None:
        self.streams, self.transform, self.seed = dict(streams), transform, seed
        self.processes = processes
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.device = device
        # One generator a stream: a captured step reads each one's seed anew, and seeds it cannot set.
        self.generators = {name: torch.Generator(device) for name in self.streams}
        self.views: dict[str, CroppedViews] = {}
        for name, stream in self.streams.items():
            if isinstance(stream.images, ImageFiles):
                if isinstance(transform, ViewTransform):
                    self.views[name] = CroppedViews(stream.images, transform, stream.at, seed, name, processes)
                continue
            stream.images = stream.images.to(device)
            stream.labels = None if stream.labels is None else stream.labels.to(device)
            stream.rows = None if stream.rows is None else stream.rows.to(device)

    @property
    def on_device(self) -> bool:
        """Whether a step's images are there already, so that `assemble` is work for the device alone."""
        return not any(isinstance(stream.images, ImageFiles) for stream in self.streams.values())

    def __call__(self, step: int) -> dict[str, Batch]:
        self.reseed(step)
        return self.assemble(self.rows(step), step)

    def reseed(self, step: int) -> None:
        """Let the step decide all that `assemble` draws."""
        for name, generator in self.generators.items():
            generator.manual_seed(stable_seed(self.seed, name, "augment", step))

    def rows(self, step: int) -> dict[str, Tensor]:
        """The images (B,) that a step sees of every stream."""
        return {name: stream.at(step) for name, stream in self.streams.items()}

    def assemble(self, rows: Mapping[str, Tensor], step: int | None = None) -> dict[str, Batch]:
        """Gather, augment and normalise; where the images are `on_device`, nothing here asks which step it is."""
        return {name: self._batch(name, stream, rows[name], step) for name, stream in self.streams.items()}

    def _batch(self, name: str, stream: Stream, rows: Tensor, step: int | None) -> Batch:
        generator = self.generators[name]
        if name in self.views:
            assert step is not None
            prepared = self.views[name](step, generator)
        elif stream.raw:
            prepared = stream.images[rows].to(self.device).float()
        else:
            images = self._pixels(stream.images, rows)
            prepared = self.transform.augmented(images, generator, outliers=stream.outliers)
        # A transform that makes several views of each image gives all first ones, then all second ones.
        labels = None
        if stream.labels is not None:
            labels = stream.labels[rows].to(self.device).repeat(len(prepared) // len(rows))
        return Batch(prepared.contiguous(memory_format=self.memory_format), labels)

    def _pixels(self, images: Tensor | ImageFiles, rows: Tensor) -> Tensor:
        """uint8 images (B, 3, H, W) on the device."""
        if isinstance(images, ImageFiles):
            own = images[rows[self.processes.rows]]
            return self.processes.whole(own.to(self.device), len(rows))
        return images[rows].to(self.device)

    def train_images(self) -> Iterator[Batch]:
        """Every row of the labelled stream that takes part, once, in the set's order, as at test time (one view)."""
        stream = self.streams["labelled"]
        assert stream.labels is not None
        rows = torch.arange(len(stream.images), device=stream.labels.device) if stream.rows is None else stream.rows
        for some in rows.split(PASS_SIZE):
            images = self.transform(stream.images[some].to(self.device), raw=stream.raw)
            yield Batch(images.contiguous(memory_format=self.memory_format), stream.labels[some].to(self.device))


def repeated(batches: Callable[[int], Mapping[str, Batch]], count: int | None) -> Callable[[int], Mapping[str, Batch]]:
    """The first `count` batches over and over, each augmented in the same way every time; None: all of them."""
    return batches if count is None else lambda step: batches(step % count)
