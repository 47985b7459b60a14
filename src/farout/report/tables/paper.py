"""Every table of a paper: OOD detection, and whatever else its file of numbers has."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from farout.errors import ConfigError
from farout.papers import Paper, load
from farout.report.records import Record
from farout.report.tables.calibration import calibration_table
from farout.report.tables.cells import Table
from farout.report.tables.geometry import geometry_table
from farout.report.tables.hybrid import hybrid_table
from farout.report.tables.robustness import robustness_table
from farout.report.tables.tabulate import table1, write_files

# (records, paper, protocol, expected)
Builder = Callable[[Iterable[Record], Paper | str, str | None, Mapping[str, str] | None], Table]
EXTRA_TABLES: Mapping[str, Builder] = {
    "geometry": geometry_table,
    "hybrid": hybrid_table,
    "calibration": calibration_table,
    "robustness": robustness_table,
}


def write_tables(
    records: Sequence[Record],
    out: Path,
    paper: Paper | str = "energy",
    protocol: str | None = None,
    rows: Sequence[str] | None = None,
    expected: Mapping[str, str] | None = None,
) -> dict[str, Table]:
    """Every table of a paper by name, each written to `NAME.md` and `NAME.csv` in the folder `out`.

    That is the table of OOD detection, whose `rows` may be chosen, and each of the paper's extra tables. Raises
    ConfigError where a record holds something else than an evaluation writes.
    """
    paper = load(paper) if isinstance(paper, str) else paper
    try:
        tables = {paper.output: table1(records, paper, protocol, rows, expected)}
        tables |= {name: EXTRA_TABLES[name](records, paper, protocol, expected) for name in paper.extra_tables}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        raise _misshapen(records, problem) from problem
    for name, table in tables.items():
        write_files(table, out, name)
    return tables


def _misshapen(records: Sequence[Record], problem: Exception) -> ConfigError:
    """Figures absent or of another kind: a record that was cut or edited by hand."""
    names = ", ".join(sorted({str(record["run"]) for record in records})[:3])
    more = f" or {len(records) - 3} others" if len(records) > 3 else ""
    what = f"{type(problem).__name__}: {problem}".splitlines()[0]
    return ConfigError(f"no table can be made of {names}{more} ({what}): leave out what was edited, or evaluate again")
