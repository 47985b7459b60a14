"""What an evaluation found, as a table, a data frame, LaTeX, curves or a record; records of many runs as a frame."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from farout.config.parse import protocol_file
from farout.errors import FaroutError
from farout.files import save_json
from farout.metrics import expected_calibration_error, reliability_curve
from farout.metrics.protocol import Protocol, means_by_score, table_rows
from farout.report.records import Record, name_of, read_ledger, read_record

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

METRICS = ("fpr95", "auroc", "aupr")
ACROSS = 6  # scores that are columns of a printed table at most: more are lines
WIDTH = 1000  # a line stays a line; the table takes only what it needs


@dataclass(frozen=True)
class Results:
    """Every score on every OOD set under one protocol; figures are fractions.

    Attributes:
        name: of the network.
        protocol: who is positive, how many OOD images, how many draws.
        scores: set -> score -> (N,), larger = more in-distribution; "id" is the ID set.
        id: accuracy and calibration of the ID images, as far as they have labels.
        rows: a row per score and OOD set; means: a row per score, over the sets.
        skipped: scores that could not be computed, and why.
        facts: of the evaluation (date, device, version), for the record.
    """

    name: str
    protocol: Protocol
    scores: Mapping[str, Mapping[str, np.ndarray]] = field(repr=False)
    id: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    means: Sequence[Mapping[str, Any]] = field(repr=False)
    skipped: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def under(self, protocol: str | Protocol) -> "Results":
        """The same scores under another protocol: a file of conf/protocol, or one of your own."""
        return tabulated(self.name, self.scores, protocol, self.skipped, self.facts, self.id)

    def to_pandas(self) -> "pandas.DataFrame":
        """One row per score and OOD set; raises FaroutError where pandas is not installed."""
        return _pandas().DataFrame(list(_flat_rows(self._entry(), {"run": self.name})))

    def to_latex(self, metrics: Sequence[str] = ("fpr95", "auroc")) -> str:
        """A table in LaTeX (booktabs) in percent: OOD sets are lines, scores within metrics are columns."""
        unknown = [metric for metric in metrics if metric not in METRICS]
        if unknown:
            raise FaroutError(f"metric {unknown[0]} is not there: choose from {', '.join(METRICS)}")
        frame = self.to_pandas()
        wide = 100 * frame.pivot(index="ood", columns="score", values=list(metrics)).reindex(index=frame.ood.unique())
        wide.loc["mean"] = [
            100 * np.nan if (mean := self.mean(score)[metric]) is None else 100 * mean for metric, score in wide.columns
        ]
        wide.columns = _pandas().MultiIndex.from_tuples([(metric.upper(), score) for metric, score in wide.columns])
        wide.index.name = None
        style = wide.style.format(precision=1, na_rep="--", escape="latex").format_index(escape="latex")
        return str(style.format_index(escape="latex", axis=1).to_latex(hrules=True, multicol_align="c"))

    def mean(self, score: str) -> Mapping[str, Any]:
        """The mean over the OOD sets; raises FaroutError for a score that is not there."""
        for mean in self.means:
            if mean["score"] == score:
                return mean
        raise FaroutError(f"score {score} is not there: choose from {', '.join(m['score'] for m in self.means)}")

    def plot_roc(self, score: str | None = None) -> "Figure":
        """A ROC curve per OOD set, of the first score or the one that is named."""
        from farout.report.figures.curves import roc_figure

        chosen = str(self.mean(score or self.means[0]["score"])["score"])
        ood = {row["ood"]: self.scores[row["ood"]][chosen] for row in self.rows if row["score"] == chosen}
        return roc_figure(self.scores["id"][chosen], ood, f"{self.name}: {chosen}", self.protocol.positive)

    def save(self, path: str | Path) -> None:
        """A record in JSON, as `load_results` and scripts/make_table.py read them."""
        save_json(Path(path), as_record([self]))

    def _entry(self) -> dict[str, Any]:
        skipped = {"skipped_scores": dict(self.skipped)} if self.skipped else {}
        parts = {"id": dict(self.id), "rows": list(self.rows), "means": list(self.means)}
        return {**self.facts, "protocol": asdict(self.protocol), **parts, **skipped}

    def __str__(self) -> str:
        """FPR95 and AUROC in percent: a line is an OOD set, or a score where there are many."""
        console = Console(width=WIDTH, highlight=False)
        with console.capture() as text:
            console.print(self._heading(), markup=False)
            console.print(self._table())
        return text.get().rstrip("\n")

    def _heading(self) -> str:
        known = "no labels"
        if self.id.get("accuracy") is not None:
            known = f"accuracy {100 * self.id['accuracy']:.2f} %, ECE {100 * self.id['ece']:.2f} %"
        positive = {"id": "ID", "ood": "OOD"}[self.protocol.positive]
        return f"{self.name}: {known}; FPR95 / AUROC in percent, protocol {self.protocol.name} ({positive} positive)"

    def _table(self) -> Table:
        cells = {(row["ood"], row["score"]): _percent(row) for row in self.rows}
        cells |= {("mean", row["score"]): _percent(row) for row in self.means}
        sets = [*dict.fromkeys(row["ood"] for row in self.rows), "mean"]
        names = [mean["score"] for mean in self.means]
        turned = len(names) > ACROSS
        head, columns, lines = ("score", sets, names) if turned else ("OOD set", names, sets)
        table = Table(head, show_edge=False)
        for column in columns:
            table.add_column(column, justify="right")
        for line in lines:
            table.add_row(line, *(cells[(column, line) if turned else (line, column)] for column in columns))
        return table


def _percent(row: Mapping[str, Any]) -> str:
    return f"{100 * row['fpr95']:.2f} / {100 * row['auroc']:.2f}"


def tabulated(
    name: str,
    scores: Mapping[str, Mapping[str, np.ndarray]],
    protocol: str | Protocol,
    skipped: Mapping[str, str],
    facts: Mapping[str, Any],
    id_facts: Mapping[str, Any],
) -> Results:
    """The figures of these scores (set -> score -> (N,)) under a protocol."""
    chosen = protocol if isinstance(protocol, Protocol) else protocol_file(protocol)
    rows = table_rows(chosen, scores, {ood: {"ood": ood} for ood in scores if ood != "id"})
    known = dict(id_facts)
    if known.get("accuracy") is not None:
        judged = (known["confidence"], known["correct"], chosen.bins)
        known |= {"ece": expected_calibration_error(*judged), "ece_bins": chosen.bins}
        known["reliability"] = reliability_curve(*judged).as_bins()
    return Results(name, chosen, scores, known, rows, means_by_score(rows), skipped, facts)


def as_record(results: Sequence[Results]) -> Record:
    """What results.json holds: one network under one or more protocols."""
    entries = [each._entry() for each in results]
    for entry in entries:
        entry["id"] = {key: value for key, value in entry["id"].items() if key not in ("confidence", "correct")}
    return {"run": results[0].name, "identity": {}, "evaluations": entries}


def load_results(folder: str | Path) -> "pandas.DataFrame":
    """Every evaluation below a folder, or in one record file: one row per run, OOD set, score and protocol.

    Takes outputs/, outputs/runs/NAME, results/ or a file. Columns are what names the run (run, method, backbone,
    id_data, scale, seed), the evaluation (protocol, positive, date, commit, device), the ID set's accuracy and ece, and
    the row's ood, score, fpr95, auroc, aupr (fractions), n_id, n_ood, with bounds of 95 % intervals where it has any.

    Raises FaroutError where there is no record, where one is damaged, or where pandas is not installed.
    """
    records = _records(Path(folder))
    rows = [row for record in records for entry in record["evaluations"] for row in _flat_rows(entry, _run(record))]
    frame = _pandas().DataFrame(rows)
    keys = ["run", "protocol", "ood", "score"]
    return frame.drop_duplicates(keys, keep="last").reset_index(drop=True) if len(frame) else frame


def _records(place: Path) -> list[Record]:
    if place.is_file() or (place / "results.json").is_file():
        return [read_record(place)]
    found = sorted(place.rglob("results.json"))
    records = [read_record(path.parent) for path in found] if found else read_ledger(place)
    if not records:
        raise FaroutError(f"{place} holds no record of an evaluation: evaluate a run first, or name another folder")
    return records


def _run(record: Record) -> dict[str, Any]:
    identity = record["identity"]
    named = {key: name_of(identity.get(key)) for key in ("method", "backbone", "id_data")}
    return {"run": record["run"], **named, "seed": identity.get("seed")}


def _flat_rows(entry: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per score and OOD set of one evaluation."""
    protocol, known = entry["protocol"], entry["id"]
    shared = {**run, "scale": entry.get("scale"), "protocol": protocol["name"], "positive": protocol.get("positive")}
    shared |= {key: known.get(key) for key in ("accuracy", "ece")}
    shared |= {key: entry.get(key) for key in ("date", "commit", "device")}
    for row in entry["rows"]:
        bounds = {
            f"{metric}_{side}": row["intervals"][metric][place]
            for metric in METRICS
            for place, side in enumerate(("low", "high"))
            if metric in row.get("intervals", ())
        }
        figures = {key: row.get(key) for key in ("ood", "score", *METRICS, "n_id", "n_ood")}
        yield {**shared, **figures, **bounds}


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise FaroutError("data frames need pandas: pip install pandas jinja2") from None
    return pandas
