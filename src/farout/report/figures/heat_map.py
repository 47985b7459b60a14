"""Heat map: FPR95 of every score on every OOD set."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from farout.report.figures.style import INK, PAPER, QUIET, SMALL, TEXT, WIDTH, canvas, label, place, shortened

MAP = "YlGnBu"  # one hue direction, its lightness falls evenly: the same order in every colour vision
ON_LIGHT, ON_DARK = "#1c2126", "#fdfdfd"  # numbers in the cells, in either theme of a page


def heat_map(
    values: Mapping[tuple[str, str], float],
    scores: Sequence[str],
    sets: Sequence[str],
    title: str = "FPR95 (%), lower is better",
    heading: str = "",
) -> Figure:
    """Scores x OOD sets with the numbers in the cells.

    `values[score, set]` are fractions; a pair without one stays empty and is marked. Names as they shall be
    read, in the order of rows and columns.
    """
    cells = np.array([[values.get((score, name), np.nan) for name in sets] for score in scores], dtype=float)
    cells = 100 * cells.reshape(len(scores), len(sets))
    names = [shortened(name, 22) for name in sets]
    left = 0.2 + 0.068 * max([len(shortened(s, 19)) for s in scores], default=0)
    bottom = 0.16 + 0.05 * max([len(name) for name in names], default=0)
    figure = canvas(0.5 + 0.27 * max(1, len(scores)) + bottom, title, heading)
    axis = figure.subplots()
    place(figure, left, 0.12, 0.46, bottom, (0, 0))
    axis.pcolormesh(cells, cmap=MAP, vmin=0, vmax=100, edgecolors=PAPER, linewidth=1.2)
    axis.invert_yaxis()
    _numbers(axis, cells, min(SMALL + 0.5, 20 * (WIDTH - left) / max(1, len(sets))))
    _ticks(axis, [label(shortened(score, 19)) for score in scores], [label(name) for name in names])
    return figure


def _numbers(axis: Axes, cells: np.ndarray, size: float) -> None:
    colours = colormaps[MAP]
    for (row, column), value in np.ndenumerate(cells):
        known = np.isfinite(value)
        red, green, blue, _ = colours(value / 100 if known else 0.0)
        dark = known and 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
        axis.text(
            column + 0.5,
            row + 0.5,
            f"{value:.1f}" if known else "–",
            ha="center",
            va="center",
            fontsize=size,
            color=QUIET if not known else ON_DARK if dark else ON_LIGHT,
        )


def _ticks(axis: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, pad=3)
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=TEXT, color=INK)
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns, fontsize=SMALL, color=INK)
    for text in axis.get_xticklabels():
        text.set(rotation=45, ha="right", rotation_mode="anchor")
