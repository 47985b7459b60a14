"""How cost grows, as a picture: a panel for everything that was made larger, both axes logarithmic."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from farout.report.figures.style import (
    GRID,
    INK,
    QUIET,
    SMALL,
    TEXT,
    canvas,
    key,
    label,
    legend_rows,
    line_style,
    place,
    quiet,
    shortened,
)

COLUMNS, WIDTH, HEIGHT = 3, 8.6, 1.75  # panels beside each other; inches of the figure, and of a panel
Lines = Mapping[str, Sequence[Mapping[str, Any]]]  # device -> its lines of the part "growth"


def growth_figure(lines: Lines) -> Figure:
    """Seconds over size, a line a device; the thin line through the last point is what grows linearly."""
    panels = list(dict.fromkeys((line["name"], line["by"]) for own in lines.values() for line in own))
    rows = legend_rows([str(panel) for panel in panels], COLUMNS)
    figure = canvas(0.72 + rows * HEIGHT + (rows - 1) * 0.78 + 0.5, "How cost grows", "", WIDTH)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    place(figure, 0.5, 0.15, 0.95, 0.5, (0.5, 0.78))
    for axis, (name, by) in zip(axes, panels, strict=False):
        _panel(axis, name, by, [_found(own, name, by) for own in lines.values()])
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    marks = [Line2D([], [], color=line_style(i)[0], marker="o", markersize=3) for i in range(len(lines))]
    linear = Line2D([], [], color=QUIET, linewidth=0.7, linestyle="--")
    key(figure, [*marks, linear], [*lines, "linear"], 4, (0.02, 0.34), handlelength=1.8)
    return figure


def _found(lines: Sequence[Mapping[str, Any]], name: str, by: str) -> Mapping[str, Any] | None:
    return next((line for line in lines if (line["name"], line["by"]) == (name, by)), None)


def _panel(axis: Axes, name: str, by: str, lines: Sequence[Mapping[str, Any] | None]) -> None:
    axis.set(xscale="log", yscale="log")
    slopes, everything = [], []
    for position, line in enumerate(lines):
        if line is None:
            continue
        sizes = [point["size"] for point in line["points"]]
        seconds = [point["min"] for point in line["points"]]
        colour = line_style(position)[0]
        linear = [seconds[-1] * size / sizes[-1] for size in sizes]
        axis.plot(sizes, linear, color=QUIET, linewidth=0.7, linestyle="--", zorder=1)
        axis.plot(sizes, seconds, color=colour, linewidth=1.4, marker="o", markersize=3, zorder=3)
        slopes.append(f"{line['slope']:.2f}")
        everything += seconds
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.set_ylim(min(everything) / 2, max(everything) * 2)
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_tick_params(which="minor", length=0)
    axis.yaxis.set_major_locator(LogLocator(10, (1, 2, 5), numticks=6))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _seconds(value)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_tick_params(which="minor", length=0)
    quiet(axis)
    axis.grid(color=GRID, linewidth=0.5)
    axis.tick_params(axis="x", labelsize=SMALL - 1)
    axis.set_title(label(shortened(name, 40)), fontsize=TEXT, color=INK, loc="left", pad=14)
    axis.annotate(f"slope {', '.join(slopes)}", (0, 1.03), xycoords="axes fraction", fontsize=SMALL, color=QUIET)
    axis.set_xlabel(by, fontsize=SMALL, color=QUIET, labelpad=2)


def _seconds(value: float) -> str:
    return f"{value:g} s" if value >= 1 else f"{1000 * value:g} ms"
