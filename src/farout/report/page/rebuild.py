"""The report of a finished run again, from what its folder holds: results.json, scores, geometry, curves, pictures."""

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farout.errors import ConfigError, MissingDataError
from farout.report.evidence import ID, Entry, Evidence, Sphere
from farout.report.marks import marks_of, matching_arrays
from farout.report.page.html import write_report
from farout.report.records import Record, read_record

# Whatever a damaged file of arrays makes NumPy and zipfile raise.
UNREADABLE = (ValueError, OSError, EOFError, KeyError, RuntimeError, OverflowError, MemoryError)
UNREADABLE += (zipfile.BadZipFile, zlib.error, struct.error)  # type: ignore[assignment]
FACTS = ("label", "prediction", "confidence")  # arrays of scores/id.npz that are no scores


def rebuild_report(folder: Path, out: Path | None = None, name: str = "report.html") -> Path:
    """Writes the report of the folder's last evaluation, into the folder itself unless `out` names another.

    Images are not in a run's folder: the section of mistakes stays that of the report which is there, and says that
    there are none where there is no report. Raises MissingDataError or ConfigError where results.json or the scores are
    absent or damaged.
    """
    record = read_record(folder)
    entries = last_evaluation(record)
    evidence = replace(read_evidence(folder / "scores", entries[0]), sphere=read_sphere(folder, entries[0]))
    mistakes = _mistakes(folder / "report.html")
    try:
        return write_report((out or folder) / name, record, entries, evidence, run=folder, mistakes=mistakes)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        reason = f"{type(problem).__name__}: {problem}".splitlines()[0]
        raise ConfigError(
            f"{folder / 'results.json'} does not say what a report shows ({reason}): evaluate the run again"
        ) from problem


def _mistakes(page: Path) -> str:
    """The section of mistakes in a written page, pictures and all; "" where there is none."""
    written = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    found = re.search(r'<section class="card" id="mistakes">.*?</section>', written, flags=re.DOTALL)
    return found[0] if found else ""


def last_evaluation(record: Record) -> list[Entry]:
    """The entries that the last evaluation appended: the same pairs of score and set under different protocols.

    Raises MissingDataError where the run was never evaluated.
    """
    if not record["evaluations"]:
        raise MissingDataError(f"{record['run']} was never evaluated: run `python eval.py` on it first")
    group: list[Entry] = []
    for entry in reversed(record["evaluations"]):
        names = {other["protocol"]["name"] for other in group}
        if group and (_facts(entry) != _facts(group[0]) or entry["protocol"]["name"] in names):
            break
        group.append(entry)
    return group[::-1]


def _facts(entry: Entry) -> list[Any]:
    pairs = {(row["score"], row["ood"]) for row in entry["rows"]}
    return [pairs, *(entry.get(key) for key in ("date", "commit", "device", "ood_data", "max_eval_images"))]


def read_evidence(folder: Path, entry: Entry) -> Evidence:
    """The arrays of a run's scores folder: the sets of the entry's rows, and confidence where it can be known."""
    own = _own_arrays(folder, ID, entry)
    scores = {ID: {name: values for name, values in own.items() if name not in FACTS}}
    for ood in dict.fromkeys(row["ood"] for row in entry["rows"]):
        scores[ood] = _own_arrays(folder, ood, entry)
    if not scores[ID]:
        raise MissingDataError(f"{folder} holds no scores of the last evaluation: evaluate the run again")
    if "no_accuracy" in entry["id"]:
        return Evidence(scores)
    confidence = own.get("confidence", own.get("msp"))  # the score MSP is the confidence
    correct = own["label"] == own["prediction"] if {"label", "prediction"} <= own.keys() else None
    return Evidence(scores, confidence, correct)


def read_sphere(folder: Path, entry: Entry) -> Sphere | None:
    """The points of a run's geometry.npz; None where this evaluation measured no geometry or kept no points.

    Raises ConfigError where the file is damaged.
    """
    if not (folder / "geometry.npz").exists() or "reason" in (entry.get("geometry") or {"reason": ""}):
        return None
    try:
        return Sphere.from_arrays(read_arrays(folder, "geometry"))
    except KeyError as absent:
        raise ConfigError(f"{folder / 'geometry.npz'} lacks {absent}: evaluate the run again") from None


def _own_arrays(folder: Path, name: str, entry: Entry) -> dict[str, NDArray[Any]]:
    """The arrays of one set that the entry's figures were made of, not those of other images or other arguments."""
    known = entry.get("depends_on")
    return matching_arrays(read_arrays(folder, name), None if known is None else marks_of(known, name))


def read_arrays(folder: Path, name: str) -> Mapping[str, NDArray[Any]]:
    """The arrays of one set; raises MissingDataError where the file is absent, ConfigError where it is damaged."""
    path = folder / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist: evaluate the run again to have a score per image") from None
    except UNREADABLE as problem:
        reason = next(iter(str(problem).splitlines()), type(problem).__name__)
        raise ConfigError(f"{path} is damaged ({reason}): evaluate the run again") from None
