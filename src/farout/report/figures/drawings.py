"""All figures of one evaluation, drawn once and kept as PNG and SVG files and as SVG text for the page."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from farout.files import write_bytes, write_text
from farout.report.evidence import ID, Entry, Evidence, Sphere, View
from farout.report.figures.curves import precision_recall_figure, roc_figure
from farout.report.figures.embedding import angle_figure, embedding_figure
from farout.report.figures.heat_map import heat_map
from farout.report.figures.histograms import Panel, score_histogram, score_row
from farout.report.figures.mistakes import confident_mistakes, mistakes_figure
from farout.report.figures.reliability import reliability_diagram
from farout.report.figures.style import png_bytes, svg_text


@dataclass(frozen=True)
class Drawing:
    """One figure: its file's stem, and the SVG document."""

    stem: str
    svg: str


def draw(entry: Entry, evidence: Evidence, heading: str = "") -> Iterator[tuple[str, Figure]]:
    """Every figure of an evaluation with its stem, one at a time (so that none is kept in memory).

    heat_map; histogram_SCORE, roc_SCORE, pr_SCORE; row_SET; embedding, angles; reliability; mistakes_SCORE. What
    needs an absent array is left out.
    """
    view = View(entry)
    values = {(score, view.sets[ood]): row["fpr95"] for (score, ood), row in view.rows.items()}
    if values:
        yield "heat_map", heat_map(values, view.scores, list(view.sets.values()), heading=heading)
    for score in view.drawable(evidence):
        yield from _of_score(view, evidence, score, heading)
    for ood, title in view.sets.items():
        if panels := _panels(view, evidence, ood):
            yield f"row_{safe(ood)}", score_row(panels, f"{view.id_title} and {title}, by every score", heading)
    if evidence.sphere is not None:
        yield from _of_sphere(view, evidence.sphere, heading)
    if evidence.confidence is not None and evidence.correct is not None:
        bins = int(entry["protocol"].get("bins") or 15)
        yield "reliability", reliability_diagram(evidence.confidence, evidence.correct, bins, heading)
    if galleries := confident_mistakes(view, evidence):
        focus = str(view.focus(evidence))
        yield f"mistakes_{safe(focus)}", mistakes_figure(galleries, f"Most confident mistakes by {focus}", heading)


def save_figures(folder: Path, entry: Entry, evidence: Evidence, heading: str = "") -> tuple[list[Path], list[Drawing]]:
    """Writes STEM.png and STEM.svg of every figure into the folder; the PNG files' paths and the drawings."""
    paths, drawings = [], []
    for stem, figure in draw(entry, evidence, heading):
        drawing = Drawing(stem, svg_text(figure))
        write_text(folder / f"{stem}.svg", drawing.svg)
        write_bytes(folder / f"{stem}.png", png_bytes(figure, palette=stem == "embedding"))
        paths.append(folder / f"{stem}.png")
        drawings.append(drawing)
    return paths, drawings


def vector_drawings(entry: Entry, evidence: Evidence, heading: str = "") -> list[Drawing]:
    """The figures as SVG alone, for a page: a third of the work of `save_figures`."""
    return [Drawing(stem, svg_text(figure)) for stem, figure in draw(entry, evidence, heading)]


def _of_score(view: View, evidence: Evidence, score: str, heading: str) -> Iterator[tuple[str, Figure]]:
    id_scores, ood = evidence.scores[ID][score], view.titled(evidence, score)
    rows = {title: view.rows[score, key] for key, title in view.sets.items() if (score, key) in view.rows}
    notes = {title: f"FPR95 {100 * row['fpr95']:.1f}" for title, row in rows.items()}
    rates: Mapping[str, float] = {title: row["base_rate"] for title, row in rows.items()}
    stem = safe(score)
    histogram = score_histogram(id_scores, ood, f"{score}: scores", score, view.positive, notes, heading)
    yield f"histogram_{stem}", histogram
    yield f"roc_{stem}", roc_figure(id_scores, ood, f"{score}: ROC", view.positive, heading)
    title = f"{score}: precision and recall"
    yield f"pr_{stem}", precision_recall_figure(id_scores, ood, title, view.positive, rates, heading)


def _of_sphere(view: View, sphere: Sphere, heading: str) -> Iterator[tuple[str, Figure]]:
    facts = ((view.entry.get("geometry") or {}).get(sphere.space) or {}).get("separability") or {}
    notes = {title: f"{round(facts[ood], 1) + 0.0:+.1f}°" for ood, title in view.sets.items() if ood in facts}
    yield "embedding", embedding_figure(sphere, view.sets, f"{view.id_title} and OOD on the unit sphere", heading)
    yield "angles", angle_figure(sphere, view.sets, "Angle to the nearest direction, and separability", notes, heading)


def _panels(view: View, evidence: Evidence, ood: str) -> list[Panel]:
    """One panel per score of this set, with the AUROC of its row."""
    own = evidence.scores.get(ood, {})
    return [
        Panel(score, evidence.scores[ID][score], own[score], f"AUROC {100 * view.rows[score, ood]['auroc']:.1f}")
        for score in view.drawable(evidence)
        if score in own and (score, ood) in view.rows
    ]


def safe(name: str) -> str:
    """A name as part of a stem."""
    return re.sub(r"[^\w.@+-]", "_", name)
