"""The most confident mistakes: the images that the network is most wrong about, each with its prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from farout.report.evidence import ID, Evidence, Pictures, View
from farout.report.figures.style import INK, QUIET, SMALL, TEXT, WIDTH, canvas, label, place, shortened

SHOWN = 6  # images of a group
CELL = 64  # pixels of a shown image's side in the figure


@dataclass(frozen=True)
class Picture:
    """One image (3, H, W) uint8 with what the network took it for, its true class if it has one, and a value."""

    pixels: NDArray[np.uint8]
    predicted: str
    value: float
    truth: str | None = None


@dataclass(frozen=True)
class Gallery:
    """A group of mistakes, the worst first; `measure` says what the value under an image is."""

    title: str
    measure: str
    pictures: Sequence[Picture]


def confident_mistakes(view: View, evidence: Evidence, count: int = SHOWN) -> list[Gallery]:
    """Per OOD set the images with the highest score; ID images with the lowest; wrong ones with the most confidence.

    Sets without images are left out. Confidence is the softmax's where it is known, else the score.
    """
    score = view.focus(evidence)
    if score is None:
        return []
    galleries = [
        _gallery(f"{title}: seen as most in-distribution", score, evidence.scores[ood][score], ood, evidence, count)
        for ood, title in view.sets.items()
        if ood in evidence.pictures and score in evidence.scores.get(ood, {})
    ]
    if ID not in evidence.pictures:
        return galleries
    strange = -np.asarray(evidence.scores[ID][score], dtype=np.float64)
    title = f"{view.id_title}: seen as least in-distribution"
    galleries.append(_gallery(title, score, strange, ID, evidence, count, sign=-1.0))
    return [*galleries, *_misclassified(view, evidence, score, count)]


def _misclassified(view: View, evidence: Evidence, score: str, count: int) -> list[Gallery]:
    pictures = evidence.pictures[ID]
    if pictures.labels is None:
        return []
    wrong = np.asarray(pictures.labels) != np.asarray(pictures.predictions)
    known = evidence.confidence is not None
    sure = np.asarray(evidence.confidence if known else evidence.scores[ID][score], dtype=np.float64)
    title = f"{view.id_title}: misclassified with most confidence"
    ranks = np.where(wrong, sure, -np.inf)
    gallery = _gallery(title, "confidence" if known else score, ranks, ID, evidence, min(count, int(wrong.sum())))
    return [gallery] if gallery.pictures else []


def _gallery(
    title: str, measure: str, ranks: ArrayLike, name: str, evidence: Evidence, count: int, sign: float = 1.0
) -> Gallery:
    """The `count` images of the largest rank; the value shown is the rank times `sign`."""
    values = np.asarray(ranks, dtype=np.float64)
    chosen = np.argsort(-values, kind="stable")[:count]
    if not len(chosen):
        return Gallery(title, measure, [])
    pictures, names = evidence.pictures[name], evidence.class_names
    pixels = pictures.rows(chosen)
    shown = [
        Picture(
            pixels[i],
            class_name(np.asarray(pictures.predictions)[row], names),
            float(sign * values[row]),
            _truth(pictures, int(row), names),
        )
        for i, row in enumerate(chosen)
    ]
    return Gallery(title, measure, shown)


def _truth(pictures: Pictures, row: int, names: Sequence[str]) -> str | None:
    return None if pictures.labels is None else class_name(np.asarray(pictures.labels)[row], names)


def class_name(index: int, names: Sequence[str]) -> str:
    """The class's name, or its number where the names are not known."""
    return str(names[index]) if 0 <= index < len(names) else f"class {index}"


def mistakes_figure(galleries: Sequence[Gallery], title: str, heading: str = "") -> Figure:
    """A row of images per gallery, each with its predicted class and value (and the true class) under it."""
    columns = max([SHOWN, *(len(gallery.pictures) for gallery in galleries)])
    cell = (WIDTH - 0.2) / columns
    row_height = cell + 0.68
    figure = canvas(0.5 + row_height * max(1, len(galleries)), title, heading)
    axis = figure.subplots()
    place(figure, 0.1, 0.1, 0.46, 0.02, (0, 0))
    axis.set(xlim=(0, columns), ylim=(row_height / cell * max(1, len(galleries)), 0))
    axis.set_axis_off()
    for position, gallery in enumerate(galleries):
        _row(figure, gallery, position * row_height / cell, cell)
    return figure


def _row(figure: Figure, gallery: Gallery, top: float, cell: float) -> None:
    """One gallery as a title, one image (a mosaic: an axes for each would be slow), and a caption for each."""
    axis = figure.axes[0]
    axis.text(0.04, top + 0.02, label(shortened(gallery.title, 60)), fontsize=TEXT, color=INK, va="top")
    start = top + 0.2 / cell
    tiles = [_tile(picture.pixels) for picture in gallery.pictures]
    if tiles:
        mosaic = np.concatenate(tiles, axis=1)
        axis.imshow(mosaic, extent=(0, len(tiles), start + 1, start), interpolation="nearest", aspect="auto", zorder=2)
        axis.set(xlim=(0, axis.get_xlim()[1]))
    for column, picture in enumerate(gallery.pictures):
        axis.text(
            column + 0.04,
            start + 1.03,
            label(caption(picture)),
            fontsize=SMALL - 1,
            color=QUIET,
            va="top",
            linespacing=1.15,
        )


def caption(picture: Picture) -> str:
    """Predicted class, true class where there is one, and the value: a line each."""
    wrong = picture.truth is not None and picture.truth != picture.predicted
    truth = [f"is {shortened(str(picture.truth), 12)}"] if wrong else []
    return "\n".join([shortened(picture.predicted, 14), *truth, f"{picture.value:.4g}"])


def _tile(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(CELL, CELL, 4): the picture by nearest neighbours with a transparent edge."""
    height, width = pixels.shape[1:]
    side = CELL - 4
    inner = pixels[:, (np.arange(side) * height // side)[:, None], np.arange(side) * width // side]
    tile = np.zeros((CELL, CELL, 4), dtype=np.uint8)
    tile[2:-2, 2:-2, :3] = inner.transpose(1, 2, 0)
    tile[2:-2, 2:-2, 3] = 255
    return tile
