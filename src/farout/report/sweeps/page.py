"""sweep.csv, sweep.md and sweep.html of a sweep, and the same few columns for a terminal."""

import csv
import io
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from farout.files import write_text
from farout.report.blocks import pipe_table
from farout.report.overview.document import document
from farout.report.sweeps.records import STATES, SweepFolder
from farout.report.sweeps.rows import SELECTION, Row, SweepTable, read_table, texts, title

HERE = Path(__file__).parent
METRICS = ("FPR95", "AUROC")


def write_sweep(folder: SweepFolder) -> SweepTable:
    """Write the three files into the sweep's folder, each whole, and return what they show; raises as `read_table`."""
    table = read_table(folder)
    write_text(folder.path / "sweep.csv", as_csv(table))
    write_text(folder.path / "sweep.md", as_markdown(table))
    write_text(folder.path / "sweep.html", as_page(table, folder))
    return table


def as_csv(table: SweepTable) -> str:
    """A line for each job; figures in percent, nothing where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.head())
    writer.writerows(table.values(row) for row in table.rows)
    return text.getvalue()


def as_markdown(table: SweepTable) -> str:
    """A page with the table; the row that selection takes is bold where it was selected by."""
    lines = [texts(table, row) for row in table.rows]
    if table.best is not None:
        bold, column = lines[table.rows.index(table.best)], 1 + len(table.knobs)
        bold[column] = f"**{bold[column]}**"
    head = f"# Sweep {table.name}\n\n`{table.command}.py` with `{' '.join(table.fixed) or 'no more'}`: {tally(table)}."
    return f"{head}\n\n{pipe_table(table.head(), lines, numeric=None)}\n\n{SELECTION}\n"


def as_text(table: SweepTable) -> str:
    """Aligned columns for a terminal: those that have something, without runs; beside others no plain protocol."""
    lines = [table.head()[:-1], *(texts(table, row)[:-1] for row in table.rows)]
    plain = [each for each in table.conditions if each[0] == "plain" and len(table.conditions) > 1]
    hidden = {f"{title(each)} {metric}" for each in plain for metric in METRICS}
    shown = [column for column in zip(*lines, strict=True) if set(column[1:]) != {"–"} and column[0] not in hidden]
    widths = [max(map(len, column)) for column in shown]
    aligned = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in zip(*shown, strict=True)]
    head = f"sweep {table.name}: {tally(table)}; only the validation figure selects, test sets never do"
    return "\n  ".join([head, *aligned])


def tally(table: SweepTable) -> str:
    """How many jobs are in each state, in words."""
    known = table.tally()
    return ", ".join(f"{known[state]} {state}" for state in STATES if state in known)


def as_page(table: SweepTable, folder: SweepFolder) -> str:
    """The page: sortable, with a picture over the numeric knobs."""
    best = table.best
    figures = ["validation FPR95", *(f"{title(each)} {metric}" for each in table.conditions for metric in METRICS)]
    lines = [_line(table, row, folder.path, row is best) for row in table.rows]
    return document(
        HERE / "sweep",
        {"knobs": _numeric(table), "figures": figures, "rows": [line["data"] for line in lines]},
        table=table,
        lines=lines,
        titles=[title(each) for each in table.conditions],
        states=STATES,
        tally=tally(table),
        selection=SELECTION,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _line(table: SweepTable, row: Row, folder: Path, best: bool) -> dict[str, Any]:
    """What the template and the script take from a row."""
    values = dict(zip(table.head(), table.values(row), strict=True))
    report = None if row.job.run is None else folder / row.job.run / "report.html"
    linked = report is not None and report.is_file() and row.job.run is not None
    pairs = [row.means.get(each, (None, None)) for each in table.conditions]
    return {
        "number": row.job.number,
        "knobs": [(row.knobs.get(key), values[key]) for key in table.knobs],
        "figures": [row.validation, *(value for pair in pairs for value in pair)],
        "score": row.score,
        "state": row.job.state,
        "reason": row.job.reason,
        "run": values["run"],
        "link": quote(os.fsencode(f"{row.job.run}/report.html")) if linked else None,
        "best": best,
        "data": {
            "number": row.job.number,
            "said": " ".join(f"{key}={value}" for key, value in row.knobs.items()),
            "knobs": {key: values[key] for key in table.knobs},
            "figures": [row.validation, *(value for pair in pairs for value in pair)],
            "best": best,
        },
    }


def _numeric(table: SweepTable) -> Sequence[str]:
    """Knobs of which at least two values are numbers, and none is anything else."""
    columns = {key: [table.values(row)[1 + place] for row in table.rows] for place, key in enumerate(table.knobs)}
    found = []
    for key, values in columns.items():
        known = {value for value in values if value is not None}
        if len(known) > 1 and all(isinstance(value, int | float) for value in known):
            found.append(key)
    return found
