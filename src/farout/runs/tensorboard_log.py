"""A run in TensorBoard: event files in tensorboard/ of its folder, by PyTorch's own writer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from farout.errors import FaroutError
from farout.runs.sink import Sink, headline_of

FLUSH_SECONDS = 10  # what a kill may cost of the curves


class TensorBoardLog(Sink):
    """Scalars over steps, pictures, alerts as text, and what evaluations find over how many there were.

    Where training goes back, a new file begins that takes back what the others say of later steps.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorboard"
        self.writer: Any = None
        self.step = -1

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._at(step).add_scalar(name, value, step)

    def alert(self, step: int, title: str, text: str) -> None:
        self._at(step).add_text(title, text, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        self._at(step).add_image(f"pictures/{name}", _pixels(path), step, dataformats="HWC")

    def results(self, number: int, evaluations: Sequence[Mapping[str, Any]], plots: Sequence[Path]) -> None:
        writer = self._writer(None)
        for evaluation in evaluations:
            for name, value in headline_of(evaluation).items():
                writer.add_scalar(f"evaluation/{name}", value, number)
        for plot in plots:
            writer.add_image(f"plots/{plot.stem}", _pixels(plot), number, dataformats="HWC")

    def samples(self, pictures: Sequence[Path], figures: Mapping[str, float]) -> None:
        writer = self._writer(None)
        for name, value in figures.items():
            writer.add_scalar(name, value)
        for path in pictures:
            writer.add_image(f"samples/{path.stem}", _pixels(path), dataformats="HWC")

    def close(self, failed: bool) -> None:
        if self.writer is not None:
            self.writer.close()

    def _at(self, step: int) -> Any:
        """The writer for what happened at a step."""
        if self.writer is not None and step < self.step:
            self.writer.close()
            self.writer = None
        self.step = step
        return self._writer(step)

    def _writer(self, purge_step: int | None) -> Any:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=purge_step, flush_secs=FLUSH_SECONDS)
        return self.writer


def require_tensorboard() -> None:
    """Raise FaroutError where PyTorch's writer cannot be imported."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    except Exception as error:
        raise FaroutError(
            "TensorBoard is not installed: pip install 'farout[tensorboard]', or leave tensorboard out of logger="
        ) from error


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
