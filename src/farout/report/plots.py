"""Score histograms and ROC curves as figures and PNG files, through matplotlib's object interface only."""

import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import auc, roc_curve

from farout.report.files import write_bytes

# Okabe and Ito's palette: told apart by readers of every colour vision.
ID_COLOUR, OOD_COLOUR, LINE_COLOUR = "#0072B2", "#E69F00", "#333333"
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#000000", "#F0E442")
DASHES = ("-", "--", ":", "-.")  # tell the second turn of the palette from the first
BINS, KEPT = 60, 0.95
PANELS_A_ROW = 3


def score_histogram(id_scores: ArrayLike, ood: Mapping[str, ArrayLike], title: str, score: str = "score") -> Figure:
    """One panel per OOD set: densities of its scores and of the ID scores on common axes.

    Scores are 1-D, larger = more in-distribution. The dashed line is the threshold that keeps 95 % of ID.
    """
    id_values = _values(id_scores)
    sets = {name: _values(scores) for name, scores in ood.items()} or {"": np.empty(0)}
    edges = np.histogram_bin_edges(np.concatenate([id_values, *sets.values()]), bins=BINS).tolist()
    columns = min(PANELS_A_ROW, len(sets))
    rows = math.ceil(len(sets) / columns)
    figure = _figure(4.0 * columns + 0.4, 2.6 * rows + 0.7, title)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, (name, values) in zip(axes, sets.items(), strict=False):
        _densities(axis, id_values, values, edges, name)
    for axis in axes[len(sets) :]:
        axis.set_visible(False)
    for axis in axes[max(0, len(sets) - columns) : len(sets)]:
        axis.tick_params(labelbottom=True)  # the lowest of each column, also above an empty place
    axes[0].legend(fontsize=7, frameon=False)
    figure.supxlabel(f"{score} (larger = more in-distribution)", fontsize=10)
    figure.supylabel("density (per unit of score)", fontsize=10)
    return figure


def roc_curves(id_scores: ArrayLike, ood: Mapping[str, ArrayLike], title: str) -> Figure:
    """One curve per OOD set, ID positive: ID kept against OOD let through, with the AUROC in the legend."""
    figure = _figure(6.2, 5.6, title)
    axis = figure.subplots()
    id_values = _values(id_scores)
    for i, (name, scores) in enumerate(ood.items()):
        values = _values(scores)
        truth = np.r_[np.ones(len(id_values)), np.zeros(len(values))]
        fpr, tpr, _ = roc_curve(truth, np.r_[id_values, values])
        style = DASHES[i // len(PALETTE) % len(DASHES)]
        label = f"{name} (AUROC {100 * auc(fpr, tpr):.1f} %)"
        axis.plot(100 * fpr, 100 * tpr, style, color=PALETTE[i % len(PALETTE)], linewidth=1.6, label=label)
    axis.plot([0, 100], [0, 100], color="#999999", linewidth=0.8, linestyle="--")
    axis.axhline(100 * KEPT, color="#999999", linewidth=0.8, linestyle=":", label="95 % of ID accepted")
    axis.set(xlabel="OOD accepted (%)", ylabel="ID accepted (%)", xlim=(-1, 101), ylim=(-1, 101), aspect="equal")
    axis.legend(loc="lower right", fontsize=8, frameon=False)
    _plain(axis)
    return figure


def save_plots(
    folder: Path, scores: Mapping[str, tuple[ArrayLike, Mapping[str, ArrayLike]]], heading: str
) -> list[Path]:
    """Histogram and ROC PNGs of every score: `scores[name]` is (ID scores, {OOD set: scores})."""
    written = []
    for name, (id_scores, ood) in scores.items():
        title = f"{heading}: {name}" if heading else name
        figures = {
            "histogram": score_histogram(id_scores, ood, title, name),
            "roc": roc_curves(id_scores, ood, title),
        }
        for kind, figure in figures.items():
            written.append(save_png(figure, folder / f"{kind}_{name}.png"))
    return written


def save_png(figure: Figure, path: Path, dpi: int = 120) -> Path:
    """Writes the figure atomically as PNG and returns the path."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=dpi)
    write_bytes(path, data.getvalue())
    return path


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    return figure


def _values(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64).ravel()
    if not np.isfinite(values).all():
        raise ValueError("scores to plot must be finite")
    return values


def _densities(
    axis: Axes, id_values: NDArray[np.float64], values: NDArray[np.float64], edges: list[float], name: str
) -> None:
    for part, colour, label in ((id_values, ID_COLOUR, "ID"), (values, OOD_COLOUR, "OOD")):
        if len(part):
            axis.hist(part, edges, density=True, histtype="stepfilled", color=colour, alpha=0.45, label=label)
            axis.hist(part, edges, density=True, histtype="step", color=colour, linewidth=1.2)
    if len(id_values):
        threshold = float(np.quantile(id_values, 1 - KEPT))
        axis.axvline(threshold, color=LINE_COLOUR, linewidth=0.9, linestyle="--", label="keeps 95 % of ID")
    axis.set_title(name, fontsize=10)
    _plain(axis)


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
