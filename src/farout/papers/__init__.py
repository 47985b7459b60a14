"""The numbers that the papers report, as data: each figure with its source and how sure we are of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from farout.errors import ConfigError

METRICS = ("fpr95", "auroc", "aupr")
CERTAINTIES = ("seen", "recalled, means agree", "recalled, unconfirmed", "unknown")


@dataclass(frozen=True)
class Figure:
    """One number in percent as the paper prints it, or None where it is unknown."""

    value: float | None = None
    certainty: str = "unknown"
    source: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.certainty not in CERTAINTIES:
            raise ValueError(f"certainty {self.certainty!r} is none of {CERTAINTIES}")


@dataclass(frozen=True)
class RowKind:
    """What a row of the paper's table is: which training method, scored how."""

    key: str
    label: str
    method: str
    score: str
    fine_tuned: bool | None = None  # None: the row does not care


@dataclass(frozen=True)
class Row:
    """One row's figures: per OOD set (and "mean") and metric, and the classifier's error on ID."""

    error: Figure
    cells: Mapping[str, Mapping[str, Figure]]
    printed_mean: tuple[float, ...] | None = None  # where the paper rounds more than our source does


@dataclass(frozen=True)
class Paper:
    """A paper's results: `results[id_data][row]`, the titles of its OOD sets, and its protocol."""

    name: str
    title: str
    reference: str
    protocol: str
    positive: str
    base_rate: float
    trust: str
    sources: Mapping[str, str]
    kinds: Mapping[str, RowKind]
    table: tuple[str, ...]  # the rows that its table shows by default
    titles: Mapping[str, str]
    sets: Mapping[str, tuple[str, ...]]  # id_data -> the OOD sets that the mean is taken over
    results: Mapping[str, Mapping[str, Row]] = field(repr=False)

    def figure(self, id_data: str, row: str, ood: str, metric: str) -> Figure:
        """The figure of one cell (`ood` may be "mean"); an unknown Figure where the paper has none."""
        found = self.results.get(id_data, {}).get(row)
        return found.cells.get(ood, {}).get(metric, Figure()) if found else Figure()

    def error(self, id_data: str, row: str) -> Figure:
        """The classifier's error on the ID test set, in percent."""
        found = self.results.get(id_data, {}).get(row)
        return found.error if found else Figure()

    def lookup(self, id_data: str, row: str, ood: str) -> dict[str, float | None] | None:
        """{"fpr95", "auroc", "aupr"} in percent, each None if unknown; None where nothing is known."""
        values = {metric: self.figure(id_data, row, ood, metric).value for metric in METRICS}
        return None if all(value is None for value in values.values()) else values


def names() -> list[str]:
    """The papers that can be loaded."""
    return sorted(f.name.removesuffix(".yaml") for f in files(__name__).iterdir() if f.name.endswith(".yaml"))


@cache
def load(name: str) -> Paper:
    """The paper of that name; raises ConfigError naming the known ones."""
    if name not in names():
        raise ConfigError(f"no numbers of a paper called {name!r}; known: {', '.join(names())}")
    raw = yaml.safe_load(files(__name__).joinpath(f"{name}.yaml").read_text("utf-8"))
    return Paper(
        name=name,
        **{key: raw[key] for key in ("title", "reference", "protocol", "positive", "base_rate", "trust")},
        sources=raw["sources"],
        kinds={key: RowKind(key, **kind) for key, kind in raw["rows"].items()},
        table=tuple(raw["table"]),
        titles=raw["ood"],
        sets={id_data: tuple(block["ood"]) for id_data, block in raw["results"].items()},
        results={
            id_data: {key: _row(row, raw["columns"]) for key, row in block["rows"].items()}
            for id_data, block in raw["results"].items()
        },
    )


def _figure(value: float | None, trust: Mapping[str, Any]) -> Figure:
    # A hole is a hole, whatever its row says of the others.
    return Figure() if value is None else Figure(float(value), trust["certainty"], tuple(trust["source"]))


def _row(raw: Mapping[str, Any], columns: list[str]) -> Row:
    cells = {
        ood: {column: _figure(value, _trust(raw, ood, column)) for column, value in zip(columns, values, strict=True)}
        for ood, values in raw["cells"]["value"].items()
    }
    mean = raw["mean"]
    cells["mean"] = {m: _figure(value, mean) for m, value in zip(METRICS, mean["value"], strict=True)}
    printed = mean.get("printed")
    return Row(_figure(raw["error"]["value"], raw["error"]), cells, tuple(printed) if printed else None)


def _trust(raw: Mapping[str, Any], ood: str, metric: str) -> Mapping[str, Any]:
    """Certainty and source of one cell: the row's, or the exception that names it."""
    for exception in raw.get("exceptions", ()):
        if exception["ood"] in (ood, "all") and exception["metric"] == metric:
            return dict(exception)
    return dict(raw["cells"])
