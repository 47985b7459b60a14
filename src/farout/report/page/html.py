"""One evaluation as one HTML file: no network, no script, light or dark, from a phone to a wide screen."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from farout.errors import FaroutError
from farout.files import write_text
from farout.metrics import ReliabilityCurve, reliability_curve
from farout.report.evidence import ID, Entry, Evidence, View
from farout.report.figures.drawings import Drawing, safe, vector_drawings
from farout.report.figures.mistakes import Gallery, Picture, confident_mistakes
from farout.report.headline import own_score
from farout.report.page.geometry import geometry_card
from farout.report.page.markup import (
    Inliner,
    Link,
    beside,
    card,
    contents,
    paragraph,
    plain_table,
    tabs,
    text,
)
from farout.report.page.robustness import robustness_card
from farout.report.page.samples import sample_card
from farout.report.page.sections import absences, controls, results, set_table, title_block, what_ran
from farout.report.page.style import style_sheet
from farout.report.page.training import training_card
from farout.report.parents import parent_of
from farout.report.records import Record, name_of

LARGEST_SIDE = 64  # pixels of an image in the page; larger ones are reduced

# Nothing is loaded and nothing runs, whatever stands in the names of runs and sets.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(
    path: Path,
    record: Record,
    entries: Sequence[Entry],
    evidence: Evidence,
    drawings: Sequence[Drawing] | None = None,
    run: Path | None = None,
    mistakes: str = "",
) -> Path:
    """Writes the report of one evaluation to `path` and returns that.

    `record` is the head of results.json (run, identity, trained, ...); `entries` are the entries that the
    evaluation gave, the one that the figures follow first; `drawings` come from `save_figures` of that entry
    and are drawn anew where absent; `run` is the run's folder, for what it logged, withstood and generated;
    `mistakes` stands in for the section of mistakes where there are no images. Raises FaroutError where there is no
    entry.
    """
    if not entries:
        raise FaroutError("there is no evaluation to report: evaluate the run first")
    drawn = vector_drawings(entries[0], evidence) if drawings is None else drawings
    write_text(path, page(record, entries, evidence, drawn, run, mistakes, _linked(path, run)))
    return path


def _linked(path: Path, run: Path | None) -> bool:
    """Whether the page lies in the run's own folder, so that its neighbours can be reached from it."""
    return run is not None and path.parent.absolute() == run.absolute()


def page(
    record: Record,
    entries: Sequence[Entry],
    evidence: Evidence,
    drawings: Sequence[Drawing],
    run: Path | None = None,
    mistakes: str = "",
    linked: bool = False,
) -> str:
    """The whole document; `linked` where it may lead to the files of other runs."""
    view, svg = View(entries[0]), {drawing.stem: drawing.svg for drawing in drawings}
    inliner = Inliner()
    heat_map = inliner.plot(svg["heat_map"], "FPR95 of every score on every OOD set") if "heat_map" in svg else ""
    started, others = _neighbours(record, run) if linked and run is not None else (None, [])
    body = [
        what_ran(record, view.entry, started),
        results(entries, heat_map),
        f'<div class="pair">{absences(view.entry)}\n{controls(view.entry)}</div>',
        _score_section(view, svg, inliner),
        _set_section(view, svg, inliner),
        geometry_card(view, evidence.sphere, svg, inliner),
        _reliability_section(view, evidence, svg, inliner),
        robustness_card(run, inliner),
        (not evidence.pictures and mistakes) or _mistakes_section(view, evidence),
        training_card(run, record, inliner),
        sample_card(None if run is None else run / "samples"),
    ]
    title = f"{record['run']} on {view.id_title}"
    foot = paragraph("The figures of this page are in results.json; a score per image is in the folder scores.", "note")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{text(title)}</title>\n<style>{style_sheet()}</style></head>\n<body>"
        + title_block(record, view, _focus(record, view, evidence))
        + contents(body, *others)
        + "\n<main>"
        + "\n".join(body)
        + f"</main>\n<footer>{foot}</footer></body></html>\n"
    )


def _focus(record: Record, view: View, evidence: Evidence) -> str | None:
    """The score of the headline: the one that the evaluation named, else that of the method's own paper."""
    if evidence.focus in view.scores:
        return evidence.focus
    identity = record.get("identity") or {}
    return own_score(str(name_of(identity.get("method"))), str(name_of(identity.get("id_data"))), view.scores)


def _neighbours(record: Record, run: Path) -> tuple[Link | None, list[Link]]:
    """The run that this one started from, and the page of all runs where they lie as commands put them."""
    parent = parent_of(run, record.get("identity") or {})
    others = [Link("All runs", "../../index.html")] if run.absolute().parent.name == "runs" else []
    return (None if parent is None else Link(parent, f"../{parent}/report.html")), others


def _score_section(view: View, svg: Mapping[str, str], inliner: Inliner) -> str:
    """Histograms, ROC and precision-recall curves, one score at a time."""
    kinds = {"histogram": "score histograms", "roc": "ROC curves", "pr": "precision-recall curves"}
    panels = {}
    for score in view.scores:
        found = {kind: svg[f"{kind}_{safe(score)}"] for kind in kinds if f"{kind}_{safe(score)}" in svg}
        plots = "".join(inliner.plot(drawing, f"{kinds[kind]} of {score}") for kind, drawing in found.items())
        if plots:
            panels[score] = f'<div class="plots">{plots}</div>'
    if not panels:
        return card("Score by score", "scores", paragraph("No scores per image were at hand to draw.", "note"))
    words = "Every image counts in these curves; the table's figures follow the protocol's draws, and so may differ "
    words += "a little. Precision supposes the protocol's base rate."
    return card("Score by score", "scores", tabs("score", panels), paragraph(words, "note"))


def _set_section(view: View, svg: Mapping[str, str], inliner: Inliner) -> str:
    """All scores on one OOD set, side by side."""
    panels = {
        title: beside(
            inliner.plot(svg[f"row_{safe(ood)}"], f"histograms of every score on {title}"), set_table(view, ood)
        )
        for ood, title in view.sets.items()
        if f"row_{safe(ood)}" in svg
    }
    if not panels:
        return ""
    words = "Each score has its own horizontal axis; the overlap is what counts."
    return card("Set by set", "sets", paragraph(words, "note"), tabs("set", panels))


def _reliability_section(view: View, evidence: Evidence, svg: Mapping[str, str], inliner: Inliner) -> str:
    """The reliability diagram, and its bins as numbers."""
    if evidence.confidence is None or evidence.correct is None or "reliability" not in svg:
        words = "The confidence of each image is not known here: evaluate with the score msp to see this diagram."
        if "no_accuracy" in view.entry["id"]:
            words = "The classifier was never trained, so there is no confidence to check."
        return card("Reliability", "reliability", paragraph(words, "note"))
    bins = int(view.entry["protocol"].get("bins") or 15)
    curve = reliability_curve(np.asarray(evidence.confidence), np.asarray(evidence.correct), bins)
    lines = [_bin_line(curve, int(i)) for i in np.flatnonzero(curve.count)]
    head = ("confidence", "images", "accuracy (%)", "mean confidence (%)", "gap (points)")
    numbers = plain_table(head, lines, "bins of the reliability diagram")
    return card("Reliability", "reliability", beside(inliner.plot(svg["reliability"], "reliability diagram"), numbers))


def _bin_line(curve: ReliabilityCurve, i: int) -> tuple[str, ...]:
    """One bin that holds images, as texts."""
    low, high, sure, right = (100 * part[i] for part in (curve.lower, curve.upper, curve.confidence, curve.accuracy))
    shares = f"{right:.2f}", f"{sure:.2f}", f"{sure - right:+.2f}"
    return f"{low:.0f} to {high:.0f} %", f"{curve.count[i]:,}", *shares


def _mistakes_section(view: View, evidence: Evidence) -> str:
    """Images that the network is most wrong about."""
    galleries = confident_mistakes(view, evidence)
    if not galleries:
        words = "No images were at hand when this page was made; an evaluation of the run shows them."
        return card("Most confident mistakes", "mistakes", paragraph(words, "note"))
    names = [title for ood, title in view.sets.items() if ood not in evidence.pictures]
    names += [view.id_title] if ID not in evidence.pictures else []
    absent = [paragraph(f"No images at hand of: {', '.join(names)}.", "note")] if names else []
    words = f"Under each image: the predicted class, the true class where there is one, and its {view.focus(evidence)} "
    words += "score (larger = more in-distribution) or its confidence."
    return card("Most confident mistakes", "mistakes", paragraph(words), *map(_shots, galleries), *absent)


def _shots(gallery: Gallery) -> str:
    pictures = "".join(_shot(picture, gallery.measure) for picture in gallery.pictures)
    return f'<h3>{text(gallery.title)}</h3><div class="shots">{pictures}</div>'


def _shot(picture: Picture, measure: str) -> str:
    wrong = picture.truth is not None and picture.truth != picture.predicted
    truth = f"is {text(picture.truth)}<br>" if wrong else ""
    words = f"predicted {picture.predicted}" + (f", is {picture.truth}" if picture.truth else "")
    caption = f"<b>{text(picture.predicted)}</b><br>{truth}{text(measure)} {picture.value:.4g}"
    source = f"data:image/png;base64,{_png(picture.pixels)}"
    return f'<figure><img src="{source}" alt="{text(words)}"><figcaption>{caption}</figcaption></figure>'


def _png(pixels: NDArray[np.uint8]) -> str:
    """(3, H, W) as the base64 of a small PNG."""
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if max(image.size) > LARGEST_SIDE:
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, format="png", optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")
