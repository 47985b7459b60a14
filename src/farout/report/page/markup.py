"""Small pieces of HTML; every text that comes in is escaped here and nowhere else."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import count
from typing import NamedTuple
from urllib.parse import quote

from farout.report.page.style import THEMED


class Link(NamedTuple):
    """Words that lead to another file, by its path from this one."""

    words: str
    target: str


def text(value: object) -> str:
    """Any value as text that is safe between tags and inside quoted attributes; a link as one."""
    if isinstance(value, Link):
        return f'<a href="{escape(quote(os.fsencode(value.target)))}">{escape(value.words)}</a>'
    return escape(str(value), quote=True)


def breakable(name: object) -> str:
    """A name that may go on in the next line after each underscore."""
    return text(name).replace("_", "_<wbr>")


def paragraph(value: object, kind: str = "") -> str:
    """A paragraph of one of the style sheet's kinds."""
    return f'<p class="{text(kind)}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def card(title: str, name: str, *parts: str) -> str:
    """A section with a heading; `name` is its anchor."""
    return f'<section class="card" id="{text(name)}"><h2>{text(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def contents(cards: Iterable[str], *links: Link) -> str:
    """A bar of links: to other pages, then to each of these cards."""
    heads = re.findall(r'<section class="card" id="([^"]*)"><h2>(.*?)</h2>', "".join(cards))
    own = "".join(f'<a href="#{name}">{title}</a>' for name, title in heads)
    return f'<nav class="bar" aria-label="On this page">{"".join(map(text, links))}{own}</nav>'


def beside(plot: str, *parts: str) -> str:
    """A figure and what belongs to it, in two columns where there is room."""
    return f'<div class="plots">{plot}<div>{"".join(parts)}</div></div>'


def details(summary: str, *parts: str) -> str:
    """Folded until somebody asks."""
    return f"<details><summary>{text(summary)}</summary>\n" + "\n".join(parts) + "\n</details>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values; pairs whose value is None or empty are left out."""
    shown = [(name, value) for name, value in pairs if value not in (None, "")]
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in shown)
        + "</dl>"
    )


def items(values: Iterable[object]) -> str:
    """A list of lines."""
    return "<ul>" + "".join(f"<li>{text(value)}</li>" for value in values) + "</ul>"


def scrolling(table: str, name: str) -> str:
    """A table in a box of its own: on a phone the box scrolls sideways, not the page."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{text(name)}">{table}</div>'


def plain_table(head: Sequence[object], rows: Iterable[Sequence[object]], name: str) -> str:
    """A scrolling table of texts; the first column heads its lines."""
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{text(line[0])}</th>' + "".join(f"<td>{text(cell)}</td>" for cell in line[1:]) + "</tr>"
        for line in rows
    )
    return scrolling(f"<table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>", name)


def tabs(name: str, panels: Mapping[str, str]) -> str:
    """One panel at a time, chosen by radio buttons and the style sheet alone; one panel needs no choice."""
    if len(panels) < 2:
        return "".join(panels.values())
    choices = "".join(
        f'<input type="radio" name="{text(name)}" id="{text(name)}-{i}"{" checked" if i == 0 else ""}>'
        f'<label for="{text(name)}-{i}">{text(title)}</label>'
        for i, title in enumerate(panels)
    )
    shown = "".join(f"<div>{panel}</div>" for panel in panels.values())
    return f'<div class="tabs">{choices}<div class="panels">{shown}</div></div>'


class Inliner:
    """SVG documents made part of one page: colours from its theme, its fonts, and no id twice."""

    def __init__(self) -> None:
        self._numbers = count()

    def plot(self, svg: str, description: str) -> str:
        """A figure element with the drawing, described for those who cannot see it."""
        return f'<figure class="plot">{self._inline(svg, description)}</figure>'

    def _inline(self, svg: str, description: str) -> str:
        prefix = f"g{next(self._numbers)}-"
        body = svg[svg.index("<svg") :]
        body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", body, flags=re.DOTALL)
        body = re.sub(r"<[^<>]*>", lambda tag: self._tag(tag[0], prefix), body)
        used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
        body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
        body = re.sub(r"</?g>\n?", "", body) if body.count("<g ") == 0 else body
        name = f'<svg role="img" aria-label="{text(description)}"'
        return body.replace("<svg", name, 1).strip()

    @staticmethod
    def _tag(tag: str, prefix: str) -> str:
        """One tag in the page's terms; text between tags is never touched."""
        if tag.startswith("<svg"):
            tag = re.sub(r' (?:width|height|xmlns(?::xlink)?|version)="[^"]*"', "", tag)
        tag = tag.replace(' id="heading"', ' class="heading"').replace("xlink:href=", "href=")
        tag = re.sub(r' id="([^"]*)"', rf' id="{prefix}\1"', tag)
        tag = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", tag)
        tag = re.sub(r"(font: [^;\"]*?px |font-family: )[^;\"]*", r"\1var(--sans)", tag)
        return re.sub(r"#[0-9a-f]{6}\b", lambda c: f"var({THEMED[c[0]]})" if c[0] in THEMED else c[0], tag)
