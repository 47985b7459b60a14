"""Score histograms and ROC curves of every score as PNG files."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from farout.report.drawings import safe
from farout.report.figures.curves import roc_figure
from farout.report.figures.histograms import score_histogram
from farout.report.figures.style import png_bytes
from farout.report.files import write_bytes


def save_plots(
    folder: Path,
    scores: Mapping[str, tuple[ArrayLike, Mapping[str, ArrayLike]]],
    heading: str,
    positive: str = "id",
) -> list[Path]:
    """Histogram and ROC PNGs of every score: `scores[name]` is (ID scores, {OOD set: scores})."""
    written = []
    for name, (id_scores, ood) in scores.items():
        figures = {
            "histogram": score_histogram(id_scores, ood, f"{name}: scores", name, positive, heading=heading),
            "roc": roc_figure(id_scores, ood, f"{name}: ROC", positive, heading),
        }
        written += [save_png(figure, folder / f"{kind}_{safe(name)}.png") for kind, figure in figures.items()]
    return written


def save_png(figure: Figure, path: Path) -> Path:
    """Writes the figure atomically as PNG and returns the path."""
    write_bytes(path, png_bytes(figure))
    return path
