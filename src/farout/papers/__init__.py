"""The numbers that the papers report, as data: each with its source and how sure we are of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from farout.errors import ConfigError

METRICS = ("fpr95", "auroc", "aupr")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same values, six times sooner
CERTAINTIES = ("seen", "recalled, means agree", "recalled, unconfirmed", "unknown")
MARKS = dict(zip(CERTAINTIES, ("", "°", "?", ""), strict=True))  # what a figure has behind it in tables and pictures


@dataclass(frozen=True)
class ReportedValue:
    """One number as the paper prints it (in percent, where it is a share), or None where it is unknown."""

    value: float | None = None
    certainty: str = "unknown"
    source: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.certainty not in CERTAINTIES:
            raise ValueError(f"certainty {self.certainty!r} is none of {CERTAINTIES}")


@dataclass(frozen=True)
class RowKind:
    """What a row of a paper's table is: which training method, scored how; of angles, measured in which space."""

    key: str
    label: str
    method: str | None = None  # None: the row is reported only, nothing here is its counterpart
    score: str = ""  # "": the table is not about scores
    fine_tuned: bool | None = None  # None: the row does not care
    score_on: Mapping[str, str] = field(default_factory=dict)  # ID sets that the paper scores by another
    optional: bool = False  # a row only where some run is of it
    variant: str | None = None  # how its network's name goes on after its trunk's (farout.report.records); None: anyhow

    def on(self, id_data: str) -> "RowKind":
        """The row with the score that the paper uses on this ID set."""
        return replace(self, score=self.score_on.get(id_data, self.score), score_on={})


@dataclass(frozen=True)
class Row:
    """One row's values: per OOD set (and "mean") and metric, and the classifier's error on ID."""

    error: ReportedValue
    cells: Mapping[str, Mapping[str, ReportedValue]]
    printed_mean: tuple[float, ...] | None = None  # where the paper rounds more than our source does
    also: Mapping[str, "Row"] = field(default_factory=dict)  # what other sources say of the same row, by their label


@dataclass(frozen=True)
class ExtraTable:
    """A further table of a paper: a value for each kind of network and measure."""

    note: str  # what a reader must know of its values
    kinds: Mapping[str, RowKind]
    values: Mapping[str, Mapping[str, Mapping[str, ReportedValue]]] = field(repr=False)  # id_data -> kind -> measure

    def value(self, id_data: str, kind: str, measure: str) -> ReportedValue:
        """One cell; unknown where the paper has none."""
        return self.values.get(id_data, {}).get(kind, {}).get(measure, ReportedValue())


@dataclass(frozen=True)
class Paper:
    """A paper's results: `results[id_data][row]`, the titles of its OOD sets, and its protocol."""

    name: str
    title: str
    reference: str
    protocol: str
    output: str  # the file that its table is written to, without the ending
    positive: str
    base_rate: float
    trust: str
    sources: Mapping[str, str]
    kinds: Mapping[str, RowKind]
    table: tuple[str, ...]  # the rows that its table shows by default
    titles: Mapping[str, str]
    sets: Mapping[str, tuple[str, ...]]  # id_data -> the OOD sets that the mean is taken over
    results: Mapping[str, Mapping[str, Row]] = field(repr=False)
    base_rates: Mapping[str, float] = field(default_factory=dict)  # of sets where it is another
    metrics: tuple[str, ...] = METRICS  # those of METRICS that it reports
    extra_tables: Mapping[str, ExtraTable] = field(default_factory=dict)  # by the name of the table
    backbones: Mapping[str, str] = field(default_factory=dict)  # id_data -> the network, as the paper writes it

    def value(self, id_data: str, row: str, ood: str, metric: str) -> ReportedValue:
        """What one cell reports (`ood` may be "mean"); an unknown ReportedValue where the paper has none."""
        found = self.results.get(id_data, {}).get(row)
        return found.cells.get(ood, {}).get(metric, ReportedValue()) if found else ReportedValue()

    def error(self, id_data: str, row: str) -> ReportedValue:
        """The classifier's error on the ID test set, in percent."""
        found = self.results.get(id_data, {}).get(row)
        return found.error if found else ReportedValue()

    def also(self, id_data: str, row: str) -> Mapping[str, Row]:
        """What other sources than the row's own say of it, by their label."""
        found = self.results.get(id_data, {}).get(row)
        return found.also if found else {}


def names() -> list[str]:
    """The papers that can be loaded."""
    return sorted(f.name.removesuffix(".yaml") for f in files(__name__).iterdir() if f.name.endswith(".yaml"))


@cache
def load(name: str) -> Paper:
    """The paper of that name; raises ConfigError naming the known ones."""
    if name not in names():
        raise ConfigError(f"no numbers of a paper called {name!r}; known: {', '.join(names())}")
    raw = yaml.load(files(__name__).joinpath(f"{name}.yaml").read_text("utf-8"), LOADER)
    texts = ("title", "reference", "protocol", "output", "positive", "base_rate", "trust")
    return Paper(
        name=name,
        **{key: raw[key] for key in texts},
        base_rates=raw.get("base_rates", {}),
        metrics=tuple(metric for metric in METRICS if metric in raw["columns"]),
        sources=raw["sources"],
        kinds=_kinds(raw["rows"]),
        table=tuple(raw["table"]),
        titles=raw["ood"],
        sets={id_data: tuple(block["ood"]) for id_data, block in raw["results"].items()},
        results={
            id_data: {key: _row(row, raw["columns"], block["ood"]) for key, row in block["rows"].items()}
            for id_data, block in raw["results"].items()
        },
        extra_tables={title: _extra_table(part) for title, part in raw.get("extra_tables", {}).items()},
        backbones={id_data: block["backbone"] for id_data, block in raw["results"].items() if "backbone" in block},
    )


def _kinds(raw: Mapping[str, Any]) -> dict[str, RowKind]:
    return {key: RowKind(key, **kind) for key, kind in raw.items()}


def _extra_table(raw: Mapping[str, Any]) -> ExtraTable:
    values = {
        id_data: {
            kind: {
                column: _reported(value, _exception(row, "mean", column) or row)
                for column, value in zip(raw["columns"], row["value"], strict=True)
            }
            for kind, row in rows.items()
        }
        for id_data, rows in raw.get("results", {}).items()
    }
    return ExtraTable(raw["note"], _kinds(raw["rows"]), values)


def _reported(value: float | None, trust: Mapping[str, Any]) -> ReportedValue:
    # A hole is a hole, whatever its row says of the others.
    return ReportedValue() if value is None else ReportedValue(float(value), trust["certainty"], tuple(trust["source"]))


def _row(raw: Mapping[str, Any], columns: Sequence[str], sets: Sequence[str]) -> Row:
    """A row; parts that its paper does not report may be left out."""
    blank = {"value": {ood: [None] * len(columns) for ood in sets}}
    cells = {
        ood: {column: _reported(value, _trust(raw, ood, column)) for column, value in zip(columns, values, strict=True)}
        for ood, values in raw.get("cells", blank)["value"].items()
    }
    mean = raw.get("mean", {"value": [None] * len(METRICS)})
    cells["mean"] = {m: _reported(value, mean) for m, value in zip(METRICS, mean["value"], strict=True)}
    error, printed = raw.get("error", {"value": None}), mean.get("printed")
    also = {label: _row(other, columns, sets) for label, other in raw.get("also", {}).items()}
    return Row(_reported(error["value"], error), cells, tuple(printed) if printed else None, also)


def _trust(raw: Mapping[str, Any], ood: str, metric: str) -> Mapping[str, Any]:
    """Certainty and source of one cell: the exception that names it, or the row's."""
    return _exception(raw, ood, metric) or raw.get("cells", {})


def _exception(raw: Mapping[str, Any], ood: str, metric: str) -> Mapping[str, Any] | None:
    named = (e for e in raw.get("exceptions", ()) if e["ood"] in (ood, "all") and e["metric"] == metric)
    return next(named, None)
