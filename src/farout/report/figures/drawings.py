"""All figures of one evaluation, drawn once and kept as PNG and SVG files and as SVG text for the page."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from farout.files import write_bytes, write_text
from farout.report.evidence import ID, Entry, Evidence, Sphere, View
from farout.report.figures.curves import precision_recall_figure, roc_figure
from farout.report.figures.embedding import angle_figure, embedding_figure
from farout.report.figures.heat_map import heat_map
from farout.report.figures.histograms import Panel, score_histogram, score_row
from farout.report.figures.mistakes import confident_mistakes, mistakes_figure
from farout.report.figures.painters import draw_all
from farout.report.figures.reliability import reliability_diagram
from farout.report.figures.sketches import Drawing, Sketch


def sketches(entry: Entry, evidence: Evidence, heading: str = "") -> Iterator[Sketch]:
    """Every figure of an evaluation, still to be drawn.

    heat_map; histogram_SCORE, roc_SCORE, pr_SCORE; row_SET; embedding, angles; reliability; mistakes_SCORE. What
    needs an absent array is left out.
    """
    view = View(entry)
    values = {(score, view.sets[ood]): row["fpr95"] for (score, ood), row in view.rows.items()}
    if values:
        sets = list(view.sets.values())
        yield Sketch.of("heat_map", heat_map, values, view.scores, sets, heading=heading)
    for score in view.drawable(evidence):
        yield from _of_score(view, evidence, score, heading)
    for ood, title in view.sets.items():
        if panels := _panels(view, evidence, ood):
            words = f"{view.id_title} and {title}, by every score"
            yield Sketch.of(f"row_{safe(ood)}", score_row, panels, words, heading)
    if evidence.sphere is not None:
        yield from _of_sphere(view, evidence.sphere, heading)
    if evidence.confidence is not None and evidence.correct is not None:
        bins = int(entry["protocol"].get("bins") or 15)
        yield Sketch.of("reliability", reliability_diagram, evidence.confidence, evidence.correct, bins, heading)
    if galleries := confident_mistakes(view, evidence):
        focus = str(view.focus(evidence))
        title = f"Most confident mistakes by {focus}"
        yield Sketch.of(f"mistakes_{safe(focus)}", mistakes_figure, galleries, title, heading)


def save_figures(folder: Path, entry: Entry, evidence: Evidence, heading: str = "") -> tuple[list[Path], list[Drawing]]:
    """Writes STEM.png and STEM.svg of every figure into the folder; the PNG files' paths and the drawings."""

    def keep(drawing: Drawing) -> None:
        assert drawing.png is not None
        write_text(folder / f"{drawing.stem}.svg", drawing.svg)
        write_bytes(folder / f"{drawing.stem}.png", drawing.png)

    drawings = draw_all(list(sketches(entry, evidence, heading)), True, keep)
    return [folder / f"{drawing.stem}.png" for drawing in drawings], drawings


def vector_drawings(entry: Entry, evidence: Evidence, heading: str = "") -> list[Drawing]:
    """The figures as SVG alone, for a page: a third of the work of `save_figures`."""
    return draw_all(list(sketches(entry, evidence, heading)), False)


def _of_score(view: View, evidence: Evidence, score: str, heading: str) -> Iterator[Sketch]:
    id_scores, ood = evidence.scores[ID][score], view.titled(evidence, score)
    rows = {title: view.rows[score, key] for key, title in view.sets.items() if (score, key) in view.rows}
    notes = {title: f"FPR95 {100 * row['fpr95']:.1f}" for title, row in rows.items()}
    rates: Mapping[str, float] = {title: row["base_rate"] for title, row in rows.items()}
    stem = safe(score)
    words = f"{score}: scores", score, view.positive, notes, heading
    yield Sketch.of(f"histogram_{stem}", score_histogram, id_scores, ood, *words)
    yield Sketch.of(f"roc_{stem}", roc_figure, id_scores, ood, f"{score}: ROC", view.positive, heading)
    title = f"{score}: precision and recall"
    yield Sketch.of(f"pr_{stem}", precision_recall_figure, id_scores, ood, title, view.positive, rates, heading)


def _of_sphere(view: View, sphere: Sphere, heading: str) -> Iterator[Sketch]:
    facts = ((view.entry.get("geometry") or {}).get(sphere.space) or {}).get("separability") or {}
    notes = {title: f"{round(facts[ood], 1) + 0.0:+.1f}°" for ood, title in view.sets.items() if ood in facts}
    title = f"{view.id_title} and OOD on the unit sphere"
    yield Sketch.of("embedding", embedding_figure, sphere, view.sets, title, heading, palette=True)
    title = "Angle to the nearest direction, and separability"
    yield Sketch.of("angles", angle_figure, sphere, view.sets, title, notes, heading)


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
