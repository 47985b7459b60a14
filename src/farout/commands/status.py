"""How far the runs are: state, progress, time left, and the last line of each one's log.

    python scripts/status.py                 of outputs/
    python scripts/status.py elsewhere --json
    watch -n 60 python scripts/status.py     again every minute

A run is running while a process works on it, interrupted where training stopped and the same command goes on, failed
where it ended in an error, finished when it is trained, evaluated when it has results. Nothing is written or kept
waiting, so this may be asked at any time, from any machine that sees the folder.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from farout.commands.arguments import Parser, guarded
from farout.engine.progress import duration
from farout.errors import ConfigError
from farout.runs.status import STATES, RunStatus, statuses

TITLES = ("run", "state", "step", "left", "last line of its log")
WIDE = 1000  # for the table where there is no terminal: every row is one line
STYLES = {"running": "green", "failed": "red", "interrupted": "yellow"}


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Print it; 2 after a one-line error."""
    parser = Parser(description=__doc__)
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"), help="default: outputs")
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    options = parser.parse_args(arguments)
    if not (options.outputs / "runs").is_dir():
        raise ConfigError(f"there is no folder {options.outputs / 'runs'}: give the one that paths.outputs names")
    found = statuses(options.outputs)
    if options.json:
        print(json.dumps([asdict(run) for run in found], indent=1))
    else:
        show(found)
    return 0


def show(found: Sequence[RunStatus]) -> None:
    """A row a run, and how many are in which state; only the log's line is cut where a terminal is too narrow."""
    rows = [(run.name, run.state, progress(run), _left(run), run.last) for run in found]
    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(TITLES):
        longest = max([len(title), *(len(row[number]) for row in rows)])
        table.add_column(title, no_wrap=True, min_width=None if title == TITLES[-1] else longest)
    for row in rows:
        table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
    out = Console() if sys.stdout.isatty() else Console(width=WIDE)
    out.print(table)
    counts = Counter(run.state for run in found)
    out.print(", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no runs yet")


def _left(run: RunStatus) -> str:
    return "" if run.seconds_left is None else duration(run.seconds_left)


def progress(run: RunStatus) -> str:
    """STEP of TOTAL (PERCENT), as far as they are known."""
    if run.step is None and run.total_steps is None:
        return ""
    if run.total_steps is None:
        return f"{run.step:,}"
    share = f" ({100 * run.step / run.total_steps:.0f} %)" if run.step is not None and run.total_steps else ""
    return f"{run.step or 0:,} of {run.total_steps:,}{share}"
