"""Tables of what is measured without OOD sets: one of a paper's extra tables, and our runs beside it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from farout.errors import ConfigError
from farout.papers import ExtraTable, Paper, ReportedValue, RowKind
from farout.report.records import EvaluatedRun
from farout.report.tables.cells import Measures, Table
from farout.report.tables.tabulate import Content, runs_of, shown, tabulate

# What a run has of each measure, as `Measures.scale` wants it; None or nothing where it has none, and "absent" may say
# why, by measure.
Facts = Mapping[str, Any]


def extra_table_of(paper: Paper, name: str) -> ExtraTable:
    """The paper's extra table of that name; raises ConfigError where it has none."""
    if name not in paper.extra_tables:
        has = ", ".join(paper.extra_tables) or "none"
        raise ConfigError(f"{paper.name} has no sheet {name!r} of numbers, so there is no such table; it has: {has}")
    return paper.extra_tables[name]


def tabulate_extra(
    paper: Paper,
    name: str,
    runs: Sequence[EvaluatedRun],
    measures: Measures,
    facts: Callable[[RowKind, EvaluatedRun], Facts],
    how: str,
    notes: Iterable[str] = (),
) -> Table:
    """`facts` of every run of each of the table's rows, beside the paper's values; rows that are only reported apart.

    Raises ConfigError as `farout.report.tables.tabulate.table1`.
    """
    extra = extra_table_of(paper, name)
    kinds = [kind for kind in extra.kinds.values() if kind.method]
    alone = [kind for kind in extra.kinds.values() if not kind.method]
    by_row = {kind.key: [_of_id(run, facts(kind, run)) for run in runs_of(kind, runs)] for kind in kinds}
    kinds = shown(kinds, by_row)

    def reported(id_data: str, kind: RowKind, ood: str, measure: str) -> ReportedValue:
        return extra.value(id_data, kind.key, measure) if ood == "id" else ReportedValue()

    table = tabulate(paper, kinds, runs, by_row, Content(measures, reported, how=how, alone=alone))
    return replace(table, notes=[*table.notes, extra.note, *notes])


def _of_id(run: EvaluatedRun, facts: Facts) -> EvaluatedRun:
    return replace(run, rows={}, missing={}, controls=(), id={**run.id, **facts})
