"""The pages' style sheet: system fonts, light and dark, narrow and wide; figures take their colours from it."""

from functools import cache
from importlib.resources import files

from farout.report.figures.style import GRID, INK, PALETTE, PAPER, QUIET

# Colours of the figures and what they are called in the page, where a dark theme gives them other values.
THEMED = {INK: "--ink", QUIET: "--quiet", GRID: "--line", PAPER: "--paper"} | {
    colour: f"--c{position}" for position, colour in enumerate(PALETTE)
}
DARK = {"--ink": "#e6e9ec", "--quiet": "#a3abb3", "--line": "#3a4149", "--paper": "#1a1e22"} | {
    f"--c{position}": colour
    for position, colour in enumerate(("#4ea3dc", "#f0803c", "#2fbf94", "#e39ac4", "#8fd0f5", "#f2b63c", "#b4bac0"))
}
TABS = 64  # tabs that a group may have


@cache
def style_sheet() -> str:
    """The whole sheet as text for a style element: colours, the rules of style.css, and which tab shows which panel."""
    light = ";".join(f"{name}:{colour}" for colour, name in THEMED.items())
    dark = ";".join(f"{name}:{colour}" for name, colour in DARK.items())
    # The n-th choice shows the n-th panel; this needs no script.
    chosen = ",".join(f".tabs>input:nth-of-type({n}):checked~.panels>:nth-child({n})" for n in range(1, TABS + 1))
    root = f":root{{color-scheme:light dark;--page:#f4f5f7;--warn:#9a5b00;--warn-paper:#fff4dc;{light}}}"
    night = f":root{{--page:#121518;--warn:#f2c26b;--warn-paper:#33290f;{dark}}}"
    rules = files(__package__).joinpath("style.css").read_text("utf-8").strip()
    return f"{root}\n@media(prefers-color-scheme:dark){{{night}}}\n{rules}\n{chosen}{{display:block}}\n{_PRINT}"


_PRINT = "@media print{.panels>*{display:block}.tabs>label,nav.bar{display:none}.card{break-inside:avoid;border:0}}"
