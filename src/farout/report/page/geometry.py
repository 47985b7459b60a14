"""The report's card of the geometry of embeddings: angles in degrees, and their figures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from farout.report.evidence import ID, Sphere, View
from farout.report.page.markup import Inliner, card, items, paragraph, plain_table

SPACES = {"features": "penultimate features", "embedding": "projected embedding"}
MEASURES = {  # in the record: title, unit, what it is and which way is better
    "dispersion": ("Dispersion", "°", "angle between the directions of two classes. Larger is better: classes apart."),
    "compactness": ("Compactness", "°", "angle of an ID image to its own class's direction. Smaller is better."),
    "nearest_class_accuracy": (
        "Nearest-class accuracy",
        "%",
        "share of ID images whose nearest direction is their own class's. Larger is better.",
    ),
    "mean_separability": (
        "Separability",
        "°",
        "how much farther OOD than ID images lie from the direction nearest to them. Larger is better; "
        "sets that share a vote count once in the mean.",
    ),
}
NO_PICTURE = "No picture: the points of this evaluation were not kept; evaluate the run again to see them."


def geometry_card(view: View, sphere: Sphere | None, svg: Mapping[str, str], inliner: Inliner) -> str:
    """Angles on the unit sphere, by space and by OOD set, with what each means; or why there are none."""
    known = view.entry.get("geometry") or {"reason": "this evaluation is older than these measures, evaluate again"}
    if "reason" in known:
        return card("Geometry", "geometry", paragraph(f"No geometry: {known['reason']}.", "note"))
    words = "How images lie on the unit sphere, in degrees. Each figure is the angle of a mean cosine (arccos of the "
    words += "mean), not a mean of angles."
    sources = [f"{SPACES[space]}: directions are {own['directions']}." for space, own in known.items()]
    return card(
        "Geometry",
        "geometry",
        paragraph(words),
        plain_table(("measure", *(SPACES[space] for space in known)), _measures(known), "measures of the geometry"),
        items(f"{title}: {meaning}" for title, _, meaning in MEASURES.values()),
        plain_table(*_angles(view, known), "angles by set"),
        *(paragraph(note, "note") for note in [*sources, *_without_direction(view, known)]),
        _pictures(sphere, svg, inliner) or paragraph(NO_PICTURE, "note"),
    )


def _measures(known: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, (title, unit, _) in MEASURES.items():
        values = [own.get(name) for own in known.values()]
        yield f"{title}{', mean' if name.startswith('mean') else ''} ({unit})", *(_figure(v, unit) for v in values)


def _angles(view: View, known: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Head and lines: each set's angle to the nearest direction and its separability, in every space."""
    head = [f"{SPACES[space]}: {what} (°)" for space in known for what in ("to the nearest direction", "separability")]
    lines = []
    for name in dict.fromkeys(name for own in known.values() for name in own["nearest"]):
        pairs = [(own["nearest"].get(name), own["separability"].get(name)) for own in known.values()]
        title = f"ID: {view.id_title}" if name == ID else view.sets.get(name, name)
        lines.append([title, *(_figure(value, "°") for pair in pairs for value in pair)])
    means = [cell for own in known.values() for cell in ("", _figure(own["mean_separability"], "°"))]
    return ["set", *head], [*lines, ["mean", *means]]


def _figure(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{100 * value:.2f}" if unit == "%" else f"{value:.2f}"


def _without_direction(view: View, known: Mapping[str, Any]) -> Iterator[str]:
    for space, own in known.items():
        for name, count in own.get("left_out", {}).items():
            title = view.id_title if name == ID else view.sets.get(name, name)
            yield f"{title}, {SPACES[space]}: {count:,} left out, which are zero or not finite and have no direction."


def _pictures(sphere: Sphere | None, svg: Mapping[str, str], inliner: Inliner) -> str:
    """The embedding's components and the histograms of angles, with what they show."""
    if sphere is None or not {"embedding", "angles"} <= svg.keys():
        return ""
    shown = inliner.plot(svg["embedding"], "ID by class, OOD sets and class directions on two principal components")
    angles = inliner.plot(svg["angles"], "histograms of angles to the nearest direction, ID against each OOD set")
    first, second = 100 * sphere.share
    words = f"The {SPACES[sphere.space]} as unit vectors, on the first two principal components of the "
    words += f"{len(sphere.angles[ID]):,} ID images and the {len(sphere.directions)} class directions: these explain "
    words += f"{first:.1f} % and {second:.1f} % of their variance, and OOD images are projected onto the same plane. "
    words += f"At most {max(map(len, sphere.points.values())):,} images of a set are drawn; the histograms count all. "
    words += "The figure above a histogram is the set's separability."
    return f'<div class="plots">{shown}{angles}</div>{paragraph(words, "note")}'
