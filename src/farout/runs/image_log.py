"""Images that a method logs while it trains: files in the run folder, and in W&B where that runs."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from farout.data.transform import Transform
from farout.files import write_bytes
from farout.report.figures.samples import mosaic_png, pixels

PICTURES = 20  # of a run, about


class ImageLog:
    """Writes the images that a method logs to folder/NAME-STEP.png, some twenty times over a run and at its end.

    Which steps these are follows from the run's length, so that an interrupted run has the same pictures. It reads
    copies and draws no random number: training with it and without it is the same.

    Args:
        transform: whose units the pictures come in.
        total, every: steps of the run, and between two reports.
        tell: gets step, name and file of each.
    """

    def __init__(
        self, folder: Path, transform: Transform, total: int, every: int, tell: Callable[[int, str, Path], None]
    ) -> None:
        self.folder, self.transform, self.total, self.tell = folder, transform, total, tell
        self.interval = every * max(1, round(total / (PICTURES * every)))

    def __call__(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        if step % self.interval and step != self.total:
            return
        for name, images in pictures.items():
            path = self.folder / f"{name}-{step:07d}.png"
            write_bytes(path, mosaic_png(pixels(images, self.transform)))
            self.tell(step, name, path)
