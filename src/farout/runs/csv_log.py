"""metrics.csv in a run's folder: the training curves as a spreadsheet reads them, a row a step."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farout.files import append_line, write_text
from farout.runs.sink import Sink

Row = dict[str, Any]


class CsvLog(Sink):
    """Writes the curves that metrics.jsonl has, each step once: where training went back, what came last counts.

    The file is made of those lines, so that it is whole also where this logger was not there from the start, or was
    killed amid a row. It is written anew when a column or an older step changes, and otherwise grows by a row.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self.rows: list[Row] = []
        self.columns: list[str] | None = None  # of the file, once this session has written it
        for step, values in _points(folder / "metrics.jsonl"):
            self._take(step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        grows = self._take(step, values)
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        if grows and columns == self.columns:
            append_line(self.path, _text(columns, self.rows[-1:]).rstrip("\n").encode())
            return
        write_text(self.path, ",".join(columns) + "\n" + _text(columns, self.rows))
        self.columns = columns

    def _take(self, step: int, values: Mapping[str, Any]) -> bool:
        """Put a point into the rows; True where it is one more at the end."""
        before = len(self.rows)
        while self.rows and self.rows[-1]["step"] > step:
            self.rows.pop()
        if self.rows and self.rows[-1]["step"] == step:  # a step may be told in parts
            self.rows[-1] |= values
            return False
        self.rows.append({"step": step, **values})
        return len(self.rows) == before + 1


def _points(path: Path) -> list[tuple[int, Row]]:
    """The curves in a run's metrics.jsonl, without events and torn lines."""
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            point = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(point, dict) and isinstance(point.get("step"), int) and "event" not in point:
            found.append((point.pop("step"), point))
    return found


def _text(columns: list[str], rows: list[Row]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()
