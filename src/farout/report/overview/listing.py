"""Every folder of runs as one line each: what it is, its figures, and what is wrong with it. Nothing here raises."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farout.errors import FaroutError, one_line
from farout.files import load_object
from farout.report.headline import own_score
from farout.report.overview.curves import curves_of
from farout.report.records import Record, name_of, read_record
from farout.shapes import misfit

# Whatever a record that was cut, or edited by hand, makes code raise that reads it.
MISSHAPEN = (FaroutError, KeyError, TypeError, ValueError, AttributeError, IndexError, OSError, OverflowError)
ASIDE = re.compile(r"\.damaged(-\d+)?$")  # how files.set_aside names what it renames

_NAMED = {"name": str}
SHAPE = {
    "identity": {
        "method": _NAMED,
        "backbone": _NAMED,
        "id_data": _NAMED,
        "outliers?": (str, None),
        "parent?": (str, None),
        "seed?": (int, None),
    },
    "scale?": (str, None),
    "trained?": (dict, None),
}


@dataclass(frozen=True)
class ListedRun:
    """A run's folder, seen from outside.

    Attributes:
        name, state: of the folder; "evaluated", "trained", "begun", "damaged", "half-written" or "set aside".
        problem: what is wrong, in a line; "" where nothing is.
        reported: whether it has a report.html.
        facts: method, data, network, scale, seed, outliers, trained (date), device; as far as they are known.
        evaluations: by protocol, list of OOD sets and limit of images, in the order in which they were first made.
        curves: what runs are compared by (`farout.report.overview.curves`).
    """

    name: str
    state: str
    problem: str = ""
    reported: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()
    curves: Mapping[str, Any] = field(default_factory=dict)


def read_run(folder: Path) -> ListedRun:
    """One run, whatever state it is in."""
    reported = (folder / "report.html").is_file()
    if ASIDE.search(folder.name):
        return ListedRun(folder.name, "set aside", "a command found this folder damaged and moved it aside", reported)
    if not (folder / "run.json").exists():
        return ListedRun(folder.name, "half-written", "it has no run.json", reported)
    try:
        facts = _facts(folder)
    except MISSHAPEN as problem:
        return ListedRun(folder.name, "damaged", _said(folder, problem), reported)
    if not (folder / "results.json").exists():
        finished = (folder / "weights.safetensors").exists()
        return ListedRun(folder.name, "trained" if finished else "begun", "", reported, facts)
    try:
        record = read_record(folder)
        evaluations = _evaluations(record, facts)
        return ListedRun(folder.name, "evaluated", "", reported, facts, evaluations, curves_of(folder, record))
    except MISSHAPEN as problem:
        return ListedRun(folder.name, "damaged", _said(folder, problem), reported, facts)


def figures_of(folder: Path, after: int = 0) -> list[dict[str, Any]]:
    """A run's evaluations, as `ListedRun` has them, after the first entries; none where results.json cannot be read."""
    try:
        record = read_record(folder)
        return _evaluations({**record, "evaluations": record["evaluations"][after:]}, _facts(folder))
    except MISSHAPEN:
        return []


def _said(folder: Path, problem: BaseException) -> str:
    """An error in a line, without where the folder lies."""
    text = str(problem) if isinstance(problem, FaroutError) else f"{type(problem).__name__}: {problem}"
    return one_line(text.replace(f"{folder}/", ""))


def _facts(folder: Path) -> dict[str, Any]:
    record = load_object(folder / "run.json", "repeat the command that made the run")
    if wrong := misfit(record, SHAPE):
        raise FaroutError(f"run.json is damaged ({wrong}): repeat the command that made the run")
    identity, trained = record["identity"], record.get("trained") or {}
    return {
        "method": identity["method"]["name"],
        "data": identity["id_data"]["name"],
        "network": identity["backbone"]["name"],
        "scale": record.get("scale"),
        "seed": identity.get("seed"),
        "outliers": identity.get("outliers"),
        "trained": _text(trained.get("date")),
        "device": _text(trained.get("device")),
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _evaluations(record: Record, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One for each protocol, list of sets and limit of images; of what was measured twice the later figure counts."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for entry in record["evaluations"]:
        condition = entry["protocol"]["name"], entry.get("ood_data"), entry.get("max_eval_images")
        groups.setdefault(condition, []).append(entry)
    return [_evaluation(condition, entries, facts) for condition, entries in groups.items()]


def _evaluation(
    condition: tuple[Any, ...], entries: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    last = entries[-1]
    means = {mean["score"]: _pair(mean) for entry in entries for mean in entry.get("means") or ()}
    scored = list(dict.fromkeys(row["score"] for entry in entries for row in entry["rows"]))
    return {
        **dict(zip(("protocol", "ood_data", "images"), condition, strict=True)),
        "date": _text(last.get("date")),
        "device": _text(last.get("device")),
        "accuracy": _percent(last["id"].get("accuracy")),
        "ece": _percent(last["id"].get("ece")),
        "own": own_score(facts["method"], str(name_of(facts["data"])), scored),
        "means": means,
        "sets": dict(_sets(entries)),
    }


def _sets(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """OOD set -> its title, the set that it stands in for, and the pair of figures of every score."""
    rows = {(row["ood"], row["score"]): row for entry in entries for row in entry["rows"]}
    for ood in dict.fromkeys(ood for ood, _ in rows):
        own = {score: row for (name, score), row in rows.items() if name == ood}
        first = next(iter(own.values()))
        scores = {score: _pair(row) for score, row in own.items()}
        names = {"title": str(first.get("title") or ood), "for": first.get("stand_in_for")}
        yield ood, {**names, "vote": first.get("vote") or ood, "scores": scores}


def _pair(row: Mapping[str, Any]) -> list[float | None]:
    """FPR95 and AUROC in percent."""
    return [_percent(row.get("fpr95")), _percent(row.get("auroc"))]


def _percent(value: object) -> float | None:
    """Of a fraction, to two places; None where it is none, or not finite."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return round(100 * float(value), 2) if known else None  # type: ignore[arg-type]
