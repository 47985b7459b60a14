"""What all figures share: colours, type, a canvas without pyplot, and the way to PNG and SVG.

A figure is as wide as a phone held upright, so that its type stays legible there; on a wider page several stand
side by side.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.typing import ColorType
from PIL import Image

# Okabe and Ito's colours, told apart by readers of every colour vision; without their yellow, which is lost on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5a5a5a")
ID_COLOUR, OOD_COLOUR = "#0072b2", "#e69f00"
INK, QUIET, GRID, PAPER = "#24292f", "#6b737c", "#d5dae0", "#ffffff"
DASHES = ("-", "--", ":", "-.")

WIDTH = 4.2  # inches; 302 points: a little less than the pixels that a phone gives it
TITLE, TEXT, SMALL = 10.0, 8.2, 7.2  # points
DPI = 200

_RENDERING: Any = {
    "svg.fonttype": "none",  # letters stay letters: small, searchable, and in the page's own type
    "svg.hashsalt": "farout",  # equal figures are equal files
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "path.simplify_threshold": 0.15,
}


def canvas(height: float, title: str, heading: str = "", width: float = WIDTH) -> Figure:
    """An empty figure (sizes in inches) with a title and, quietly under it, what it belongs to."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    top = 1 - 0.09 / height
    figure.suptitle(label(title), x=0.1 / width, y=top, ha="left", va="top", fontsize=TITLE, color=INK, weight="bold")
    if heading:
        note = figure.text(0.1 / width, top - 0.19 / height, label(shortened(heading, 72)), va="top", fontsize=SMALL)
        note.set(color=QUIET, gid="heading")
    return figure


def place(figure: Figure, left: float, right: float, top: float, bottom: float, gaps: tuple[float, float]) -> None:
    """Margins and the gaps between panels (across, down), in inches: cheaper than an automatic layout."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height)
    grid = figure.axes[0].get_subplotspec()
    if grid is None:
        return
    rows, columns = grid.get_gridspec().get_geometry()
    across = (width - left - right - gaps[0] * (columns - 1)) / columns
    down = (height - top - bottom - gaps[1] * (rows - 1)) / rows
    figure.subplots_adjust(wspace=gaps[0] / across, hspace=gaps[1] / down)


def quiet(axis: Axes, grid: bool = False) -> None:
    """Two thin spines, small grey ticks, and no more."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set(color=GRID, linewidth=0.8)
    axis.tick_params(labelsize=SMALL, color=GRID, labelcolor=QUIET, length=2.5, width=0.8, pad=2)
    if grid:
        axis.grid(color=GRID, linewidth=0.5)
        axis.set_axisbelow(True)


def line_style(position: int) -> tuple[ColorType, str]:
    """Colour and dashes of the n-th line: the dashes change every four, before the colours come again."""
    return PALETTE[position % len(PALETTE)], DASHES[position // 4 % len(DASHES)]


def label(text: str) -> str:
    """A name as it is: matplotlib takes dollars for mathematics and a leading underscore for "hide this"."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def shortened(text: str, length: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def legend_rows(names: Sequence[str], columns: int) -> int:
    """How many rows a legend with that many columns needs."""
    return -(-len(names) // columns)


def key(
    figure: Figure,
    handles: Sequence[Any],
    names: Sequence[str],
    columns: int,
    at: tuple[float, float],
    from_bottom: bool = False,
    **spacing: float,
) -> None:
    """A quiet legend `at` a place in inches from the figure's left edge and from its top, or its bottom.

    `spacing` goes to matplotlib's legend as it is.
    """
    (width, height), (left, down) = figure.get_size_inches(), at
    figure.legend(
        handles,
        names,
        loc="lower left" if from_bottom else "upper left",
        bbox_to_anchor=(left / width, down / height if from_bottom else 1 - down / height),
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        labelcolor=QUIET,
        **spacing,
    )


def png_bytes(figure: Figure, dpi: float = DPI, palette: bool = False) -> bytes:
    """The figure as a PNG file; with a palette of 256 colours, a third of the bytes where thousands of dots lie."""
    data = io.BytesIO()
    with rc_context(_RENDERING):
        figure.savefig(data, format="png", dpi=dpi)
    if not palette:
        return data.getvalue()
    small = io.BytesIO()
    # By coverage: the usual method gives rare colours, such as those of a few marks, away to frequent ones.
    fewer = Image.open(data).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    fewer.save(small, format="png", optimize=True)
    return small.getvalue()


def svg_text(figure: Figure) -> str:
    """The figure as a compact SVG document: no metadata, paths to a tenth of a point."""
    data = io.StringIO()
    with rc_context(_RENDERING):
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _compact(data.getvalue())


def _compact(svg: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # Only inside tags: a decimal number in a name stays as it is.
    body = re.sub(r"<[^<>]*>", lambda tag: re.sub(r"-?\d+\.\d{3,}", _rounded, tag[0]), body)
    body = re.sub(r'(?<= d=")[^"]*', lambda path: short_path(path[0]), body)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + re.sub(r">\s*\n\s*<", ">\n<", body)


def short_path(path: str) -> str:
    """The same path of straight lines in fewer letters: tenths of a point, H and V for the steps of histograms."""
    words = path.split()
    if not set(re.findall(r"[A-Za-z]", path)) <= {"M", "L", "z"} or not words:
        return " ".join(words)
    out, here, position = [], ("", ""), 0
    while position < len(words):
        command = words[position]
        if command == "z":
            out.append("z")
            position += 1
            continue
        there = (_tenth(words[position + 1]), _tenth(words[position + 2]))
        if command == "M":
            out.append(f"M{there[0]} {there[1]}")
        elif there[0] == here[0]:
            out += [] if there[1] == here[1] else [f"V{there[1]}"]
        else:
            out.append(f"H{there[0]}" if there[1] == here[1] else f"L{there[0]} {there[1]}")
        here, position = there, position + 3
    return "".join(out)


def _tenth(number: str) -> str:
    return f"{float(number):.1f}".removesuffix(".0")


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
