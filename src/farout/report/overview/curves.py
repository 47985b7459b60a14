"""What runs are compared by, image by image, small enough for a page: histograms, ROC curves, and who is accepted.

Every score has its own threshold, which accepts 95 % of the ID images. Of a set with many images every n-th is looked
at, the same ones for every run, so that two runs can be compared image by image.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farout.errors import FaroutError
from farout.metrics.vectors import Vector, finite_vector
from farout.report.evidence import ID, Entry
from farout.report.figures.histograms import heights, shared_edges
from farout.report.marks import marks_of, matching_arrays
from farout.report.page.rebuild import FACTS, read_arrays
from farout.report.records import Record

KEPT = 0.95  # of the ID images, by the threshold
BINS, LEVELS = 48, 64  # of a histogram; of a ROC curve, evenly over the share of ID that is accepted
IMAGES = 2000  # of a set, at most, whose acceptance is kept one by one
SETS = 40  # of a run, at most; its latest

Arrays = Mapping[str, NDArray[Any]]


def curves_of(folder: Path, record: Record) -> dict[str, Any]:
    """By set ("id" is one): which images, and by score the histogram, the ROC curve and the accepted images.

    Only arrays that belong to what results.json says are taken (`belongs_to`). A set whose scores are absent, damaged
    or of another evaluation is left out.
    """
    found: dict[str, Any] = {}
    for name, entry in list(_latest(record).items())[-SETS:]:
        own, known = _scores(folder, name, entry), _scores(folder, ID, entry)
        by_score = {score: _curve(known[score], own[score]) for score in own if score in known}
        if by_score:
            found[name] = {**_images_of(entry, name), "scores": {k: v for k, v in by_score.items() if v}}
            found[ID] = found.get(ID) or {**_images_of(entry, ID), "scores": {}}
            of_id = {score: _of_id(values) for score, values in known.items() if by_score.get(score)}
            found[ID]["scores"] |= of_id
    return found


def sampled(number: int, at_most: int = IMAGES) -> NDArray[np.intp]:
    """Rows of so many, evenly taken, the first and the last among them."""
    chosen = min(number, at_most)
    return np.arange(chosen, dtype=np.intp) * (number - 1) // max(1, chosen - 1)


def _latest(record: Record) -> dict[str, Entry]:
    """OOD set -> the last entry that has it and says what its figures depend on."""
    found: dict[str, Entry] = {}
    for entry in record["evaluations"]:
        for row in entry["rows"] if isinstance(entry.get("depends_on"), Mapping) else ():
            found.pop(row["ood"], None)
            found[row["ood"]] = entry
    return found


def _scores(folder: Path, name: str, entry: Entry) -> dict[str, Vector]:
    """Score -> (N,) of one set, of this very entry; nothing where there are none."""
    try:
        arrays = matching_arrays(read_arrays(folder / "scores", name), marks_of(entry["depends_on"], name))
    except FaroutError:
        return {}
    return {key: values for key, values in arrays.items() if key not in FACTS and values.ndim == 1 and values.size}


def _images_of(entry: Entry, name: str) -> dict[str, Any]:
    """A short hash of which images these are, and of how many; where from, if that is the whole of a stored set."""
    known = entry["depends_on"]
    facts = known["id"] if name == ID else known["ood"][name]
    whole = facts["n"] == facts["of"]
    # Which images were left out of a set depends on what they were duplicates of.
    text = json.dumps([facts, None if whole else known["references"]], sort_keys=True)
    source = entry["id"].get("dataset") if name == ID else name
    stored = {"name": source, "sha256": facts["sha256"]} if whole else None
    return {"images": hashlib.sha256(text.encode()).hexdigest()[:12], "n": facts["n"], "stored": stored}


def _curve(id_values: Vector, ood_values: Vector) -> dict[str, Any] | None:
    """One score on one OOD set; None where a score is not finite."""
    try:
        known, other = finite_vector(id_values, "ID"), finite_vector(ood_values, "OOD")
    except FaroutError:
        return None
    edges, _ = shared_edges(known, [other], BINS)
    levels = np.quantile(known, 1 - np.arange(LEVELS + 1) / LEVELS)
    accepted = 1 - np.searchsorted(np.sort(other), levels, side="left") / other.size
    return {
        "edges": [float(edges[0]), float(edges[-1])],
        "id": _packed_heights(heights(known, edges)),
        "ood": _packed_heights(heights(other, edges)),
        "roc": _text(np.round(255 * accepted)),
        "tau": _threshold(known),
        "sd": float(known.std()),
        "accepts": _accepted(other, _threshold(known)),
    }


def _of_id(values: Vector) -> dict[str, Any]:
    known = finite_vector(values, "ID")
    return {"accepts": _accepted(known, _threshold(known))}


def _threshold(id_values: Vector) -> float:
    return float(np.quantile(id_values, 1 - KEPT))


def _accepted(values: Vector, threshold: float) -> str:
    """A bit for each sampled image, eight a byte, the first in the highest bit."""
    return _text(np.packbits(values[sampled(len(values))] >= threshold))


def _packed_heights(densities: Vector) -> list[Any]:
    """The highest density, and all in 255ths of it."""
    top = float(densities.max())
    return [top, _text(np.round(255 * densities / (top or 1.0)))]


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode("ascii")


def sources(curves: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Which images -> where they are stored, of the sets that are wholly stored."""
    for known in curves.values():
        if known["stored"] is not None:
            yield known["images"], known
