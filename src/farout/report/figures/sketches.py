"""A figure before it is drawn, as it can be sent to another process, and after."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from farout.report.figures.style import png_bytes, svg_text


@dataclass(frozen=True)
class Drawing:
    """One figure: its file's stem, the SVG document and, where it was wanted, the PNG file."""

    stem: str
    svg: str
    png: bytes | None = None


@dataclass(frozen=True)
class Sketch:
    """A figure that is still to be drawn.

    Attributes:
        stem: of its files.
        make: a function of some module, which gives the figure; `given` and `options` are its arguments.
        palette: whether its PNG has 256 colours (thousands of dots lie in it).
    """

    stem: str
    make: Callable[..., Figure]
    given: tuple[Any, ...]
    options: dict[str, Any]
    palette: bool = False

    @classmethod
    def of(cls, stem: str, make: Callable[..., Figure], *given: Any, palette: bool = False, **options: Any) -> "Sketch":
        """With the arguments as `make` takes them."""
        return cls(stem, make, given, options, palette)

    def drawing(self, png: bool) -> Drawing:
        """Drawn here and now."""
        figure = self.make(*self.given, **self.options)
        svg = svg_text(figure)
        return Drawing(self.stem, svg, png_bytes(figure, palette=self.palette) if png else None)
