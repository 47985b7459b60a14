"""Reading results.json records, and seeing each as one run under one protocol."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farout.errors import ConfigError, FaroutError, MissingDataError
from farout.files import load_json
from farout.shapes import misfit

Record = dict[str, Any]

# What further commands leave in a run's folder, by the key that a record has it under.
PAIRED = "paired-"  # what names of comparisons of runs begin with
SENSITIVITY = "sensitivity-"  # and names of sweeps of one knob at a time
SIDE_FILES = {"samples": "samples/samples.json", "robustness": "robustness.json"}


_RATE = (int, float, None)
_NAMES = {"score": str, "ood": str, "title?": str, "stand_in_for?": (str, None), "vote?": (str, None)}
_ROW = {**_NAMES, "fpr95?": _RATE, "auroc?": _RATE, "aupr?": _RATE}
_BINS = {"count": [int], "confidence": [_RATE], "accuracy": [_RATE]}
ENTRY = {
    "protocol": {"name": str},
    "rows": [_ROW],
    "id": {"reliability?": _BINS},
    "means?": [{"score": str, "fpr95?": _RATE, "auroc?": _RATE, "aupr?": _RATE}],
    "group_means?": [{"score": str, "group": str, "over": [str], "fpr95?": _RATE, "auroc?": _RATE, "aupr?": _RATE}],
    "missing?": [{"ood": str, "reason": str}],
    "controls?": [{"control": str, "score": str}],
    "duplicates?": dict,
    "geometry?": (dict, None),
    "paired?": {"differences": [{"first": str, "second": str, "ood": str}]},
}
RECORD = {
    "run": str,
    "identity": dict,
    "evaluations": [ENTRY],
    "trained?": (dict, None),
    "data?": (dict, None),
    "adopted?": [{"files": [{"name": str, "rounded": dict}]}],
    "composition?": {"files": [str], "changed": dict},
    "samples?": {"inception?": dict},
    "robustness?": {"curves?": [dict]},
}
SIDE_SHAPES = {"samples": RECORD["samples?"], "robustness": RECORD["robustness?"]}


@dataclass(frozen=True)
class EvaluatedRun:
    """One trained network's results under one protocol; figures are fractions, as in the record."""

    name: str
    identity: Mapping[str, Any]
    trained: Mapping[str, Any]
    protocol: Mapping[str, Any]
    id: Mapping[str, Any]  # with the accuracies of its probes, where it has any, as linear_probe and nearest_class
    evaluated: Mapping[str, Any]  # date, commit, device of the last evaluation
    rows: Mapping[tuple[str, str], Mapping[str, Any]] = field(repr=False)  # (score, ood) -> row
    missing: Mapping[str, str]  # ood -> reason
    controls: Sequence[Mapping[str, Any]]
    duplicates: Mapping[str, int]
    geometry: Mapping[str, Mapping[str, Any]]  # space -> angles in degrees
    no_geometry: str | None  # why there is none
    samples: Mapping[str, Any] = field(default_factory=dict)  # how good what it generates is
    curves: Sequence[Mapping[str, Any]] = ()  # accuracy under attack, of this run and of its baselines
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)  # OOD sets that have a mean of their own
    paired: Sequence[Mapping[str, Any]] = ()  # what one of its scores has more than another, with intervals

    @property
    def seed(self) -> int:
        return int(self.identity.get("seed") or 0)

    @property
    def method(self) -> str:
        return str(name_of(self.identity.get("method")))


def name_of(value: Any) -> Any:
    """The `name` of a config group, or the value itself where it is no group."""
    return value.get("name") if isinstance(value, Mapping) else value


def read_record(path: Path) -> Record:
    """A record from a run folder (its results.json, and what SIDE_FILES names) or from a record file.

    Raises MissingDataError where there is none, ConfigError where the file is no record.
    """
    file = path / "results.json" if path.is_dir() else path
    record: Record = _read_json(file)
    if wrong := misfit(record, RECORD):
        raise ConfigError(f"{file} is no record of a run ({wrong}): evaluate the run again, or copy the record again")
    for key, name in SIDE_FILES.items():
        if path.is_dir() and (path / name).is_file():
            record[key] = _read_json(path / name)
            if wrong := misfit(record[key], SIDE_SHAPES[key]):
                raise ConfigError(f"{path / name} is damaged ({wrong}): move it away, and repeat what wrote it")
    if reason := record.get("samples", {}).get("inception", {}).get("reason"):
        # Which file is missing is worth keeping, not where that machine looked for it.
        record["samples"]["inception"]["reason"] = re.sub(r"(?<![\w.])(?:/[\w.+~-]+)+/", "", reason)
    return record


def _read_json(file: Path) -> Any:
    try:
        return load_json(file, "evaluate the run again, or copy the record again")
    except MissingDataError:
        raise MissingDataError(f"{file} does not exist: train and evaluate first, or name another run") from None
    except FaroutError as problem:
        raise ConfigError(str(problem).replace("is not valid JSON", "is not JSON", 1)) from None


def read_ledger(folder: Path) -> list[Record]:
    """Every run's record below a folder, in order of file name; raises MissingDataError where it is absent.

    What measured speed (bench-DEVICE.json), many settings (sensitivity-*.json) or differences of runs (paired-*.json)
    is no run's.
    """
    if not folder.is_dir():
        raise MissingDataError(f"there is no folder {folder}: name one with records, or runs")
    return [read_record(path) for path in sorted(folder.rglob("*.json")) if is_run_record(path)]


def is_run_record(path: Path) -> bool:
    """Whether a file of results/ is about one run, by its name."""
    return not path.name.startswith(("bench-", SENSITIVITY, PAIRED))


def runs_under(records: Iterable[Record], protocol: str) -> list[EvaluatedRun]:
    """Each record's evaluation by the protocol of that name; of records of the same run the last one counts.

    Raises ConfigError where no record was evaluated by that protocol.
    """
    latest = {record["run"]: record for record in records}
    runs = [run for record in latest.values() if (run := _run(record, protocol)) is not None]
    if latest and not runs:
        known = sorted({e["protocol"]["name"] for r in latest.values() for e in r["evaluations"]})
        raise ConfigError(f"no run was evaluated by protocol {protocol!r}; there is: {', '.join(known) or 'none'}")
    return runs


def _run(record: Record, protocol: str) -> EvaluatedRun | None:
    """Joins a record's evaluations by that protocol (eval.py may add OOD sets): later rows count."""
    found = [e for e in record["evaluations"] if e["protocol"]["name"] == protocol]
    if not found:
        return None
    rows = {(row["score"], row["ood"]): row for e in found for row in e["rows"]}
    measured = {ood for _, ood in rows}
    geometry = _geometry(found)
    return EvaluatedRun(
        name=record["run"],
        identity=record["identity"],
        trained=record.get("trained", {}),
        protocol=found[-1]["protocol"],
        id=_id(found, geometry),
        evaluated={key: found[-1].get(key) for key in ("date", "commit", "device")},
        rows=rows,
        missing={m["ood"]: m["reason"] for e in found for m in e.get("missing", ()) if m["ood"] not in measured},
        controls=list({(c["control"], c["score"]): c for e in found for c in e.get("controls", ())}.values()),
        duplicates={ood: n for e in found for ood, n in e.get("duplicates", {}).items()},
        geometry=geometry,
        no_geometry=None if geometry else (found[-1].get("geometry") or {}).get("reason"),
        samples=record.get("samples", {}),
        curves=record.get("robustness", {}).get("curves", ()),
        groups={mean["group"]: mean["over"] for e in found for mean in e.get("group_means", ())},
        paired=_paired(found),
    )


def _paired(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The latest differences of every two scores on every set."""
    known = [d for entry in found for d in (entry.get("paired") or {}).get("differences", ())]
    return list({(d["first"], d["second"], d["ood"]): d for d in known}.values())


def _geometry(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each space's latest angles; OOD sets of earlier evaluations join where the classes' directions are the same."""
    spaces: dict[str, dict[str, Any]] = {}
    for entry in found:
        measured = {name: facts for name, facts in (entry.get("geometry") or {}).items() if name != "reason"}
        for name, facts in measured.items():
            known = spaces.get(name, {})
            same = known.get("dispersion") == facts["dispersion"]
            apart = {**(known["separability"] if same else {}), **facts["separability"]}
            spaces[name] = {**facts, "separability": apart}
    return spaces


def _id(found: Sequence[Mapping[str, Any]], geometry: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The latest facts of ID; an accuracy of a probe may be of an earlier evaluation."""
    probes = [e["id"]["linear_probe"]["accuracy"] for e in found if "linear_probe" in e["id"]]
    nearest = geometry.get("features", {}).get("nearest_class_accuracy")
    return {**found[-1]["id"], "linear_probe": probes[-1] if probes else None, "nearest_class": nearest}


def trunk_of(backbone: Any) -> Any:
    """The name of a network whatever its head or its norm: of `resnet18_cider` and `wrn_28_10_jem` without the end."""
    name = name_of(backbone)
    projects = isinstance(backbone, Mapping) and "projection" in backbone
    return name.removesuffix("_cider") if projects else str(name).removesuffix("_jem")


def variant_of(backbone: Any) -> str:
    """What its name has more than its trunk's: "_jem" without a norm, "_cider" with a head, or ""."""
    return str(name_of(backbone)).removeprefix(str(trunk_of(backbone)))


def size_of(backbone: Any) -> str:
    """What a network's name does not say of its size: " of width 8", " of widen factor 1"; "" where it says all."""
    if not isinstance(backbone, Mapping):
        return ""
    named = dict(zip(("depth", "widen_factor"), re.findall(r"\d+", str(name_of(backbone))), strict=False))
    parts = [f"width {backbone['width']}"] if backbone.get("width") else []
    for key, number in named.items():
        value = backbone.get(key)
        parts += [f"{key.replace('_', ' ')} {value}"] if value is not None and str(value) != number else []
    return f" of {' and '.join(parts)}" if parts else ""


def flatten(identity: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("backbone.name", "resnet20") and so on, for every leaf of an identity."""
    for key, value in identity.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def where(records: Iterable[Record], conditions: Sequence[str]) -> list[Record]:
    """The records whose identity agrees with every "key=value"; a group may be named by its name alone.

    `backbone=resnet18` means `backbone.name=resnet18` and allows a projection head on it, or no norm in it. A key that
    a record lacks (CE has no margins) and a value of null agree with anything: the cross-entropy run belongs to every
    choice of outliers.
    Raises ConfigError on a malformed condition or a key that no record has.
    """
    kept = list(records)
    for condition in conditions:
        key, sign, wanted = condition.partition("=")
        if not sign or not key or not wanted:
            raise ConfigError(f"--where {condition!r}: write key=value, for instance scale=small")
        leaves = [dict(flatten(record["identity"])) for record in kept]
        known = {name for leaf in leaves for name in leaf}
        name = key if key in known else f"{key}.name"
        if kept and name not in known:
            raise ConfigError(f"--where {condition!r}: no run has {key!r}; there is: {', '.join(sorted(known))}")
        kept = [r for r, leaf in zip(kept, leaves, strict=True) if leaf.get(name) is None or _is(r, leaf, name, wanted)]
    return kept


def _is(record: Record, leaf: Mapping[str, Any], name: str, wanted: str) -> bool:
    trunk = name == "backbone.name" and trunk_of(record["identity"]["backbone"]) == wanted
    return trunk or str(leaf[name]) == wanted
