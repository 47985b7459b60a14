"""A sweep as a table: a row for each job, with its knobs, its validation figure and its means over test sets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farout.errors import FaroutError
from farout.files import load_object
from farout.report.overview.listing import figures_of
from farout.report.sweeps.records import Job, SweepFolder

SELECTION = (
    "Selection is by the validation figure alone: mean FPR95 of the method's own score on held-out training images "
    "against validation corruptions, lower is better (bold: the lowest). Means over test sets are shown, and nothing "
    "is ever chosen by them. All figures are percent."
)

Condition = tuple[str, str, int | None]  # protocol, list of OOD sets, images of a set at most
Pair = tuple[float | None, float | None]  # FPR95 and AUROC


@dataclass(frozen=True)
class Row:
    """A job's line.

    Attributes:
        knobs: option -> value, of the table's knobs those that the job sets.
        validation: in percent; None where there is no holdout, or no finished run.
        score: the method's own, which the means are of.
        means: over the OOD sets of each condition.
    """

    job: Job
    knobs: Mapping[str, str]
    validation: float | None
    score: str | None
    means: Mapping[Condition, Pair]


@dataclass(frozen=True)
class SweepTable:
    """All of a sweep's jobs, by number.

    Attributes:
        knobs: options in which jobs differ, those that were swept over first.
        fixed: overrides that all jobs share.
    """

    name: str
    command: str
    knobs: Sequence[str]
    fixed: Sequence[str]
    conditions: Sequence[Condition]
    rows: Sequence[Row]

    @property
    def best(self) -> Row | None:
        """The finished row with the lowest validation figure; the first of several."""
        known = [row for row in self.rows if row.validation is not None and row.job.state == "done"]
        return min(known, key=lambda row: row.validation or 0.0, default=None)

    def head(self) -> list[str]:
        """The columns' names."""
        pairs = [f"{title(each)} {metric}" for each in self.conditions for metric in ("FPR95", "AUROC")]
        return ["#", *self.knobs, "validation FPR95", "score", *pairs, "state", "why", "run"]

    def values(self, row: Row) -> list[Any]:
        """A row's cells under `head`: numbers in percent, None where there is nothing."""
        knobs = [number_or_text(row.knobs.get(key)) for key in self.knobs]
        pairs = [value for each in self.conditions for value in row.means.get(each, (None, None))]
        run = None if row.job.run is None else Path(row.job.run).name
        return [row.job.number, *knobs, row.validation, row.score, *pairs, row.job.state, row.job.reason or None, run]

    def tally(self) -> dict[str, int]:
        """State -> how many jobs."""
        states = [row.job.state for row in self.rows]
        return {state: states.count(state) for state in dict.fromkeys(states)}


def read_table(folder: SweepFolder) -> SweepTable:
    """The table as the sweep's folder and its runs' folders have it now; raises as `SweepFolder.record`."""
    record, jobs = folder.record(), folder.jobs()
    options = [dict(map(option, job.overrides)) for job in jobs]
    every = list(dict.fromkeys([*record["swept"], *(key for each in options for key in each)]))
    knobs = [key for key in every if key in record["swept"] or len({each.get(key) for each in options}) > 1]
    rows = [_row(folder, job, own, knobs) for job, own in zip(jobs, options, strict=True)]
    fixed = [word for word in (jobs[0].overrides if jobs else ()) if option(word)[0] not in knobs]
    conditions = list(dict.fromkeys(each for row in rows for each in row.means))
    return SweepTable(folder.name, record["command"], knobs, fixed, conditions, rows)


def option(word: str) -> tuple[str, str]:
    """An override's key and value."""
    key, _, value = word.lstrip("+~").partition("=")
    return key, value


def title(condition: Condition) -> str:
    """A condition in words."""
    protocol, sets, images = condition
    return f"{protocol} on {sets}" + (f", {images} a set" if images else "")


def number_or_text(value: str | None) -> float | int | str | None:
    """A knob's value as a number where it is one."""
    if value is None:
        return None
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def cell(value: Any) -> str:
    """A value of the table as people read it."""
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def texts(table: SweepTable, row: Row) -> list[str]:
    """A row's cells as text: knobs as they were given, figures to two places."""
    first, last = 1, 1 + len(table.knobs)
    values = table.values(row)
    return [*map(cell, values[:first]), *(row.knobs.get(key, "–") for key in table.knobs), *map(cell, values[last:])]


def _row(folder: SweepFolder, job: Job, options: Mapping[str, str], knobs: Sequence[str]) -> Row:
    run = None if job.run is None else folder.path / job.run
    evaluations = job.evaluations or ([] if run is None else figures_of(run))
    own = next((each.get("own") for each in evaluations), None)
    shown = {key: options[key] for key in knobs if key in options}
    return Row(job, shown, None if run is None else _validation(run), own, dict(_means(evaluations)))


def _validation(run: Path) -> float | None:
    """A run's figure on its holdout; None where it has none, or is not whole."""
    try:
        known = (load_object(run / "run.json").get("validation") or {}).get("fpr95")
    except (FaroutError, AttributeError):
        return None
    return round(100 * known, 2) if isinstance(known, int | float) else None


def _means(evaluations: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Condition, Pair]]:
    for each in evaluations:
        pair = (each.get("means") or {}).get(each.get("own"))
        if pair:
            yield (str(each["protocol"]), str(each["ood_data"]), each.get("images")), (pair[0], pair[1])
