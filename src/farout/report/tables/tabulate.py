"""Our figures beside the paper's, from the records of runs: Table 1 of Energy, the tables of CIDER and JEM.

`table1` builds a table of OOD detection, `to_terminal`, `to_markdown` and `to_csv` render it, `write_table` does all of
it; `tabulate` builds tables of whatever runs measured (angles, samples, attacks: farout.report.tables.paper has all).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from farout.errors import ConfigError
from farout.files import write_text
from farout.metrics.protocol import CONTROL_TOLERANCE
from farout.papers import Paper, ReportedValue, RowKind, load
from farout.report.records import EvaluatedRun, Record, flatten, name_of, runs_under, size_of, trunk_of, variant_of
from farout.report.tables.caption import caption_lines, note_lines, protocol_text, shown_figures
from farout.report.tables.cells import (
    DETECTION,
    MEASURED,
    MISSING,
    NO_CLASSIFIER,
    NO_MEAN,
    NOT_RUN,
    PROBES,
    REPORTED,
    Cell,
    Control,
    Measures,
    OODSet,
    Table,
    TableRow,
    mean_of_votes,
)
from farout.report.tables.render import to_csv, to_markdown, to_terminal

__all__ = ["Table", "table1", "tabulate", "to_csv", "to_markdown", "to_terminal", "write_files", "write_table"]

# (ID set, row, OOD set or "mean" or "id", metric) -> the paper's figure
Reported = Callable[[str, RowKind, str, str], ReportedValue]

# Imported weights were trained elsewhere: without a norm by JEM, with one by cross-entropy.
IMPORTED = {"_jem": "jem"}


def table1(
    records: Iterable[Record],
    paper: Paper | str = "energy",
    protocol: str | None = None,
    rows: Sequence[str] | None = None,
    expected: Mapping[str, str] | None = None,
) -> Table:
    """Our results beside the paper's, one row per method and score.

    `records` are results.json contents; `protocol` names the evaluation to take from each (default: the paper's);
    `rows` are keys of the paper's rows (default: those of its table); `expected` gives the titles of further OOD sets
    that shall have a line even where no run has them. The mean is over the sets that every run in the table has, so
    that the rows can be compared.

    Raises ConfigError where the records cannot share a table: two ID sets or networks, a row of two kinds. A network
    with and without a projection head, or a norm, at the same width, is one network here.
    """
    paper = load(paper) if isinstance(paper, str) else paper
    kinds = [_kind(paper, key) for key in rows or paper.table]
    runs = runs_under(records, protocol or paper.protocol)
    by_row = {kind.key: runs_of(kind, runs) for kind in kinds}
    kinds = shown(kinds, by_row)

    def reported(id_data: str, kind: RowKind, ood: str, metric: str) -> ReportedValue:
        if ood != "id":
            return paper.value(id_data, kind.key, ood, metric)
        error = paper.error(id_data, kind.key)
        if metric != "accuracy" or error.value is None:
            return ReportedValue()
        return ReportedValue(100 - error.value, error.certainty, error.source)

    alone = [kind for kind in paper.kinds.values() if kind.method is None and kind not in kinds]
    return tabulate(paper, kinds, runs, by_row, Content(detection(paper), reported, expected or {}, alone=alone))


def detection(paper: Paper) -> Measures:
    """What a table of OOD detection shows: the metrics that the paper reports."""
    return replace(DETECTION, ood=paper.metrics)


@dataclass(frozen=True)
class Content:
    """What a table shows of its runs, and beside them.

    Attributes:
        measures, reported: of our runs, and what the paper says of the same.
        expected: titles of further OOD sets that have a line even where no run has them.
        how: how the runs were measured; None: the protocol's words.
        alone: rows that are only reported: they stand apart, as far as anything is known of them.
    """

    measures: Measures
    reported: Reported
    expected: Mapping[str, str] = field(default_factory=dict)
    how: str | None = None
    alone: Sequence[RowKind] = ()


def tabulate(
    paper: Paper,
    kinds: Sequence[RowKind],
    runs: Sequence[EvaluatedRun],
    by_row: Mapping[str, Sequence[EvaluatedRun]],
    content: Content,
) -> Table:
    """A table of the runs of each row. Raises ConfigError as `table1`."""
    measures = content.measures
    used = [run for kind in kinds for run in by_row[kind.key]]
    _check_one_table(kinds, runs, used)
    id_data, protocol = str(name_of(used[0].identity["id_data"])), used[0].protocol
    kinds = [kind.on(id_data) for kind in kinds]
    over = _common_sets(kinds, by_row)
    if measures.id == DETECTION.id and any("no_accuracy" in run.id for run in used):
        there = (probe for probe in PROBES if any(run.id.get(probe) is not None for run in used))
        measures = replace(measures, id=(*measures.id, *there))
    build = _Builder(paper, id_data, protocol, over, measures, content.reported)
    build.groups = groups = _common_groups(used, over)
    rows = [build.row(kind, by_row[kind.key]) for kind in kinds]
    others = [build.row(kind.on(id_data), ()) for kind in content.alone]
    sets = _ood_sets(paper, id_data, used, content.expected) if measures.ood else []
    unused = sorted({run.name for run in runs} - {run.name for run in used})
    votes = len({s.vote or s.ood for s in sets if s.ood in over})
    return Table(
        paper=paper,
        id_data=id_data,
        protocol=protocol,
        rows=rows,
        sets=sets,
        mean_over=[s.ood for s in sets if s.ood in over],
        votes=votes,
        controls=_controls(rows),
        caption=caption_lines(paper, content.how or f"protocol {protocol['name']}: {protocol_text(protocol)}", rows),
        notes=note_lines(paper, rows, sets, over, votes, unused),
        measures=measures,
        groups=groups,
        reported=[row for row in others if any(figure.value is not None for figure in shown_figures([row]))],
    )


def write_table(
    records: Iterable[Record],
    out: Path,
    paper: Paper | str = "energy",
    protocol: str | None = None,
    rows: Sequence[str] | None = None,
    expected: Mapping[str, str] | None = None,
    name: str = "table1",
) -> Table:
    """Builds the table, writes `<name>.md` and `<name>.csv` into the folder `out`, and returns the table."""
    table = table1(records, paper, protocol, rows, expected)
    write_files(table, out, name)
    return table


def write_files(table: Table, out: Path, name: str) -> None:
    """Writes `<name>.md` and `<name>.csv` into the folder `out`."""
    write_text(out / f"{name}.md", to_markdown(table))
    write_text(out / f"{name}.csv", to_csv(table))


def _check_one_table(kinds: Sequence[RowKind], runs: Sequence[EvaluatedRun], used: Sequence[EvaluatedRun]) -> None:
    """Raises ConfigError where there is nothing to tabulate, or what cannot stand side by side."""
    if not runs:
        raise ConfigError("there are no records to tabulate: train and evaluate first, or name runs")
    if not used:
        raise ConfigError(f"none of the {len(runs)} runs belongs in this table: its rows are {_labels(kinds)}")
    _agreed("id_data", used, lambda run: name_of(run.identity["id_data"]))
    _agreed("backbone", used, lambda run: trunk_of(run.identity["backbone"]))
    _agreed("backbone.width", used, lambda run: dict(flatten(run.identity)).get("backbone.width"))
    _agreed("size of backbone", used, lambda run: size_of(run.identity["backbone"]).strip())
    _agreed("protocol", used, lambda run: run.protocol)


def _kind(paper: Paper, key: str) -> RowKind:
    if key not in paper.kinds:
        raise ConfigError(f"{paper.name} has no row {key!r}; it has: {', '.join(paper.kinds)}")
    return paper.kinds[key]


def _labels(kinds: Iterable[RowKind]) -> str:
    return ", ".join(kind.label for kind in kinds)


def _agreed(what: str, runs: Iterable[EvaluatedRun], get: Callable[[EvaluatedRun], Any]) -> None:
    """Raises ConfigError, listing the values, where the runs do not share one."""
    values: list[Any] = []
    for run in runs:
        if (value := get(run)) not in values:
            values.append(value)
    if len(values) > 1:
        listed = " and ".join(str(value) for value in values)
        raise ConfigError(f"one table cannot hold two kinds of {what} ({listed}): choose with --where {what}=...")


def runs_of(kind: RowKind, runs: Iterable[EvaluatedRun]) -> list[EvaluatedRun]:
    """The runs of one row, by seed; raises ConfigError where they differ in more than the seed."""
    mine = sorted((run for run in runs if _belongs(kind, run)), key=lambda run: run.seed)
    settings = [_setting(run) for run in mine]
    for setting in settings[1:]:
        differing = sorted(k for k in settings[0] | setting if settings[0].get(k) != setting.get(k))
        if differing:
            key = "scale" if "scale" in differing else differing[0]
            values = f"{settings[0].get(key)} and {setting.get(key)}"
            raise ConfigError(f"row {kind.label!r} mixes two kinds of {key} ({values}): choose with --where {key}=...")
    seeds = [run.seed for run in mine]
    if len(set(seeds)) < len(seeds):
        names = ", ".join(run.name for run in mine)
        raise ConfigError(f"row {kind.label!r} has two runs of the same seed: give one of {names}")
    return mine


def shown(kinds: Sequence[RowKind], by_row: Mapping[str, Sequence[EvaluatedRun]]) -> list[RowKind]:
    """The rows of a table: optional ones only where there are runs of them."""
    return [kind for kind in kinds if by_row[kind.key] or not kind.optional]


def _belongs(kind: RowKind, run: EvaluatedRun) -> bool:
    trained, variant, method = "no_accuracy" not in run.id, variant_of(run.identity["backbone"]), run.method
    if method == "imported" and trained:
        method = IMPORTED.get(variant, "ce")
    fitting = kind.variant in (None, variant) and kind.fine_tuned in (None, run.identity.get("parent") is not None)
    return method == kind.method and fitting


def _setting(run: EvaluatedRun) -> dict[str, Any]:
    """What runs of one row share: all of the identity but the seed and the parent, which follows it."""
    return {key: value for key, value in flatten(run.identity) if key.split(".")[0] not in ("seed", "parent")}


def _common_sets(kinds: Sequence[RowKind], by_row: Mapping[str, Sequence[EvaluatedRun]]) -> set[str]:
    """The OOD sets that every run has under its row's score: the mean is over these."""
    has = [{ood for score, ood in run.rows if score == k.score} for k in kinds for run in by_row[k.key]]
    return set.intersection(*[sets for sets in has if sets] or [set()])


def _common_groups(runs: Sequence[EvaluatedRun], over: set[str]) -> dict[str, list[str]]:
    """Groups of OOD sets that every run has, as far as the mean over all sets has them."""
    names = [name for name in runs[0].groups if all(name in run.groups for run in runs)]
    found = {name: [ood for ood in runs[0].groups[name] if ood in over] for name in names}
    return {name: sets for name, sets in found.items() if sets}


def _ood_sets(paper: Paper, id_data: str, runs: Sequence[EvaluatedRun], expected: Mapping[str, str]) -> list[OODSet]:
    """The paper's own sets in its order, then the others as they were met; absent ones keep a line."""
    found: dict[str, OODSet] = {}
    for run in runs:
        for row in run.rows.values():
            found.setdefault(row["ood"], _ood_set(row, run))
    for run in runs:
        for ood, reason in run.missing.items():
            found.setdefault(ood, OODSet(ood, paper.titles.get(ood, ood), reason=reason))
    own = paper.sets.get(id_data, ())
    names = dict.fromkeys([*own, *found, *expected])
    titles = {**paper.titles, **expected}
    return [found.get(ood) or OODSet(ood, titles[ood]) for ood in names]


def _ood_set(row: Mapping[str, Any], run: EvaluatedRun) -> OODSet:
    keys = ("stand_in_for", "vote", "n_ood", "n_available", "base_rate")
    title = row.get("title") or row["ood"]
    return OODSet(
        row["ood"], title, **{key: row.get(key) for key in keys}, duplicates=run.duplicates.get(row["ood"], 0)
    )


class _Builder:
    """Fills the cells of one table: `protocol` is ours, `over` the sets that the mean is taken over."""

    def __init__(
        self,
        paper: Paper,
        id_data: str,
        protocol: Mapping[str, Any],
        over: set[str],
        measures: Measures,
        reported: Reported,
    ) -> None:
        self.paper, self.id_data, self.protocol, self.over = paper, id_data, protocol, over
        self.measures, self.reported = measures, reported
        self.own_sets = over == set(paper.sets.get(id_data, ()))
        self.groups: Mapping[str, Sequence[str]] = {}

    def row(self, kind: RowKind, runs: Sequence[EvaluatedRun]) -> TableRow:
        oods = dict.fromkeys(
            [
                *self.paper.sets.get(self.id_data, ()),
                *(ood for run in runs for _, ood in run.rows),
                *(ood for run in runs for ood in run.missing),
            ]
        )
        cells = {(ood, metric): self._cell(kind, runs, ood, metric) for ood in oods for metric in self.measures.ood}
        cells |= {("mean", metric): self._mean(kind, runs, metric) for metric in self.measures.ood}
        for name, sets in self.groups.items():
            cells |= {
                (f"mean {name}", metric): self._group_mean(kind, runs, sets, metric) for metric in self.measures.ood
            }
        return TableRow(kind, runs, cells, {m: self._id_cell(kind, runs, m) for m in self.measures.id})

    def _cell(self, kind: RowKind, runs: Sequence[EvaluatedRun], ood: str, metric: str) -> Cell:
        mine = {run.seed: run.rows[kind.score, ood] for run in runs if (kind.score, ood) in run.rows}
        figure = self.reported(self.id_data, kind, ood, metric)
        if not mine:
            return Cell(status=MISSING if any(ood in run.missing for run in runs) else _idle(kind), paper=figure)
        seeds = {seed: self.measures.scale * row[metric] for seed, row in mine.items()}
        if any(row.get("stand_in_for") for row in mine.values()):
            figure = ReportedValue()  # even under the official set's key a stand-in has no figure of the paper's
        return Cell(seeds, MEASURED, figure, all(self._comparable(row, metric) for row in mine.values()))

    def _mean(self, kind: RowKind, runs: Sequence[EvaluatedRun], metric: str) -> Cell:
        figure = self.reported(self.id_data, kind, "mean", metric)
        seeds, comparable = {}, self.own_sets
        for run in runs:
            mine = [row for (score, ood), row in run.rows.items() if score == kind.score and ood in self.over]
            comparable &= all(self._comparable(row, metric) for row in mine)
            # A paper may average AUPR over its own sets whatever their base rates: then so do we.
            if (mean := mean_of_votes(mine, metric, any_rate=comparable)) is not None:
                seeds[run.seed] = self.measures.scale * mean
        if seeds:
            return Cell(seeds, MEASURED, figure, comparable)
        return Cell(status=NO_MEAN if runs else _idle(kind), paper=figure)

    def _group_mean(self, kind: RowKind, runs: Sequence[EvaluatedRun], sets: Sequence[str], metric: str) -> Cell:
        mine = {run.seed: [run.rows[kind.score, ood] for ood in sets if (kind.score, ood) in run.rows] for run in runs}
        means = {seed: mean_of_votes(rows, metric) for seed, rows in mine.items()}
        seeds = {seed: self.measures.scale * mean for seed, mean in means.items() if mean is not None}
        return Cell(seeds, MEASURED) if seeds else Cell(status=NO_MEAN if runs else _idle(kind))

    def _comparable(self, row: Mapping[str, Any], metric: str) -> bool:
        """AUROC and angles are the same whoever is positive; FPR95 is not, and AUPR also follows the base rate."""
        same_set = row.get("stand_in_for") is None
        same_positive = metric not in ("fpr95", "aupr") or self.protocol["positive"] == self.paper.positive
        rate = self.paper.base_rates.get(row["ood"], self.paper.base_rate)
        same_rate = metric != "aupr" or abs(row["base_rate"] - rate) < 1e-3
        return same_set and same_positive and same_rate

    def _id_cell(self, kind: RowKind, runs: Sequence[EvaluatedRun], metric: str) -> Cell:
        seeds = {run.seed: self.measures.scale * run.id[metric] for run in runs if run.id.get(metric) is not None}
        own = all((run.id.get("info") or {}).get("stand_in_for") is None for run in runs)
        untrained = metric in ("accuracy", "ece") and any("no_accuracy" in run.id for run in runs)
        why = next((run.id["absent"][metric] for run in runs if metric in run.id.get("absent", ())), _idle(kind))
        status = MEASURED if seeds else NO_CLASSIFIER if untrained else why
        return Cell(seeds, status, self.reported(self.id_data, kind, "id", metric), bool(seeds) and own)


def _idle(kind: RowKind) -> str:
    return NOT_RUN if kind.method else REPORTED


def _controls(rows: Sequence[TableRow]) -> list[Control]:
    """The controls of every row; a warning where any seed is more than 0.05 from chance."""
    names = dict.fromkeys(c["control"] for row in rows for run in row.runs for c in run.controls)
    controls = []
    for name in names:
        values = {
            row.kind.key: [
                c["auroc"]
                for run in row.runs
                for c in run.controls
                if c["control"] == name and c["score"] == row.kind.score
            ]
            for row in rows
        }
        values = {key: found for key, found in values.items() if found}
        controls.append(
            Control(
                name,
                {key: 100 * sum(found) / len(found) for key, found in values.items()},
                {key: any(abs(a - 0.5) > CONTROL_TOLERANCE for a in found) for key, found in values.items()},
            )
        )
    return controls
