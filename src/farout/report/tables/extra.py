"""Tables of what is measured without OOD sets: a sheet of a paper's numbers, and our runs beside it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from farout.errors import ConfigError
from farout.papers import Figure, Paper, RowKind, Sheet
from farout.report.records import Run
from farout.report.tables.cells import Measures, Table
from farout.report.tables.tabulate import runs_of, tabulate

# What a run has of each measure, as `Measures.scale` wants it; None or nothing where it has none, and "absent" may say
# why, by measure.
Facts = Mapping[str, Any]


def sheet_of(paper: Paper, name: str) -> Sheet:
    """Raises ConfigError where the paper has no such sheet."""
    if name not in paper.sheets:
        has = ", ".join(paper.sheets) or "none"
        raise ConfigError(f"{paper.name} has no sheet {name!r} of numbers, so there is no such table; it has: {has}")
    return paper.sheets[name]


def sheet_table(
    paper: Paper,
    name: str,
    runs: Sequence[Run],
    measures: Measures,
    facts: Callable[[RowKind, Run], Facts],
    how: str,
    notes: Iterable[str] = (),
) -> Table:
    """`facts` of every run of each of the sheet's rows, beside the sheet's figures; rows that are only reported apart.

    Raises ConfigError as `farout.report.tables.tabulate.table1`.
    """
    sheet = sheet_of(paper, name)
    kinds = [kind for kind in sheet.kinds.values() if kind.method]
    alone = [kind for kind in sheet.kinds.values() if not kind.method]
    by_row = {kind.key: [_of_id(run, facts(kind, run)) for run in runs_of(kind, runs)] for kind in kinds}

    def reported(id_data: str, kind: RowKind, ood: str, measure: str) -> Figure:
        return sheet.figure(id_data, kind.key, measure) if ood == "id" else Figure()

    table = tabulate(paper, kinds, runs, by_row, measures, reported, {}, how, alone)
    return replace(table, notes=[*table.notes, sheet.note, *notes])


def _of_id(run: Run, facts: Facts) -> Run:
    return replace(run, rows={}, missing={}, controls=(), id={**run.id, **facts})
