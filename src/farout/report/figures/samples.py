"""Grids of generated images: a plain one, and one whose rows and columns have titles."""

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from farout.data.transform import Transform
from farout.errors import FaroutError
from farout.report.figures.style import INK, QUIET, SMALL, WIDTH, canvas, label, place, shortened

GAP = 2  # pixels between images
LARGEST_CELL = 0.5  # inches, of an image on a named sheet


def pixels(images: Tensor, transform: Transform) -> Tensor:
    """(N, 3, H, W) in a network's units -> uint8 on the CPU: its transform undone, and cut to what pixels can be."""
    shown = images.detach().float().cpu() * transform.std + transform.mean
    return shown.nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)


def mosaic(images: Tensor, columns: int | None = None) -> NDArray[np.uint8]:
    """uint8 (N, 3, H, W), row by row, as one white-edged picture (height, width, 3); None: about a square.

    Raises FaroutError for no image, and for another shape or type.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8 or not len(images):
        raise FaroutError(f"a mosaic needs uint8 images (N, 3, H, W), not {images.dtype} {tuple(images.shape)}")
    count, channels, height, width = images.shape
    across = columns or math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    cells = images.new_full((down * across, channels, height + GAP, width + GAP), 255)
    cells[:count, :, GAP:, GAP:] = images
    sheet = cells.view(down, across, channels, height + GAP, width + GAP).permute(0, 3, 1, 4, 2)
    joined = sheet.reshape(down * (height + GAP), across * (width + GAP), channels)
    return torch.nn.functional.pad(joined, (0, 0, 0, GAP, 0, GAP), value=255).numpy()


def mosaic_png(images: Tensor, columns: int | None = None) -> bytes:
    """The mosaic as a PNG file, a pixel for a pixel."""
    data = io.BytesIO()
    Image.fromarray(mosaic(images, columns)).save(data, format="png", optimize=True)
    return data.getvalue()


def sheet_figure(
    images: Tensor, title: str, rows: Sequence[str] = (), columns: Sequence[str] = (), heading: str = ""
) -> Figure:
    """uint8 (R * C, 3, H, W), row by row, R names at the left and C names on top.

    Raises FaroutError where one of the two is not named at all, or names and images differ in number.
    """
    across = len(columns) or (len(images) // len(rows) if rows else 0)
    if not across or len(images) != across * (len(rows) or len(images) // across):
        raise FaroutError(f"{len(images)} images do not fill {len(rows)} rows and {len(columns)} columns")
    down = len(images) // across
    left, top = (0.95 if rows else 0.1), (0.62 if columns else 0.46)
    cell = min(LARGEST_CELL, (WIDTH - left - 0.1) / across)
    figure = canvas(top + cell * down + 0.1, title, heading)
    axis = figure.subplots()
    place(figure, left, WIDTH - left - cell * across, top, 0.1, (0, 0))
    axis.imshow(mosaic(images, across), extent=(0, across, down, 0), interpolation="nearest", aspect="auto")
    axis.set_axis_off()
    for row, name in enumerate(rows):
        axis.text(-0.12, row + 0.5, label(shortened(name, 14)), fontsize=SMALL, color=INK, ha="right", va="center")
    for column, name in enumerate(columns):
        axis.text(column + 0.5, -0.12, label(name), fontsize=SMALL - 1, color=QUIET, ha="center", va="bottom")
    return figure
