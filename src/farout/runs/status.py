"""How far the runs of a folder are, from their files alone: quick, reads only, and light to import."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from farout.errors import one_line
from farout.runs.locks import LOCKS, is_held, lock_file

State = Literal["running", "failed", "interrupted", "finished", "evaluated"]
STATES = get_args(State)
FAILED = "failed"  # the event that ends the lines of a run whose training or evaluation ended in an error
TAIL = 2**13  # bytes at the end of metrics.jsonl that are read
Line = Mapping[str, Any]


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
        state: running while its lock is held; of the others, finished ones are trained, evaluated ones have results.
        step, total_steps: of training, as far as they were logged; None: nobody wrote them down.
        seconds_left: of training, at the speed of the last steps logged; None: not known, or nothing is left.
        changed: when its log last grew, in seconds since 1970.
        last: the last line of its log, in words.
    """

    name: str
    state: State
    step: int | None
    total_steps: int | None
    seconds_left: float | None
    changed: float
    last: str


def statuses(outputs: Path) -> list[RunStatus]:
    """All runs in outputs/runs, those first that somebody may want to look at, and of them the latest first."""
    runs = outputs / "runs"
    found = [status_of(folder) for folder in _folders(runs)]
    known = {run.name for run in found}
    found += [_waiting(lock) for lock in (runs / LOCKS).glob("*.lock") if lock.stem not in known and is_held(lock)]
    return sorted(found, key=lambda run: (STATES.index(run.state), -run.changed, run.name))


def _folders(runs: Path) -> Iterator[Path]:
    for folder in runs.iterdir():
        if not folder.name.startswith(".") and (folder / "run.json").is_file():
            yield folder


def status_of(folder: Path) -> RunStatus:
    """The run in a folder."""
    lines, changed = _tail(folder / "metrics.jsonl")
    record = _record(folder / "run.json")
    trained, total = (folder / "weights.safetensors").exists(), _whole(record.get("total_steps"))
    points = [line for line in lines if "event" not in line]
    step = points[-1]["step"] if points else None
    if trained:
        step = _whole(_object(record.get("trained")).get("steps")) or step
        total = total or step
    state = _state(folder, trained, bool(lines) and lines[-1].get("event") == FAILED)
    left = None if trained or total is None else _seconds_left(points, total)
    if left is not None and state == "running":
        left = max(0.0, left - (time.time() - changed))
    changed = changed or (folder / "run.json").stat().st_mtime
    return RunStatus(folder.name, state, step, total, left, changed, _words(lines[-1]) if lines else "")


def _state(folder: Path, trained: bool, failed: bool) -> State:
    if is_held(lock_file(folder)):
        return "running"
    if trained and (folder / "results.json").exists():
        return "evaluated"
    if failed:
        return "failed"
    return "finished" if trained else "interrupted"


def _waiting(lock: Path) -> RunStatus:
    """A run that has a lock and nothing else yet: its images are read, or its parent is trained first."""
    return RunStatus(lock.stem, "running", None, None, None, lock.stat().st_mtime, "begins, or waits for its parent")


def _tail(path: Path) -> tuple[list[Line], float]:
    """The last whole lines of a run's log, and when it was written; torn ones are left out."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            file.seek(max(0, facts.st_size - TAIL))
            texts = file.read().split(b"\n")[0 if facts.st_size <= TAIL else 1 :]
    except OSError:
        return [], 0.0
    return [line for text in texts if (line := _line(text)) is not None], facts.st_mtime


def _line(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and _whole(line.get("step")) is not None else None


def _seconds_left(points: list[Line], total: int) -> float | None:
    """At the speed of those of the last points that lie on one way forward."""
    way: list[tuple[int, float]] = []
    for point in points:
        seconds = point.get("seconds")
        if not isinstance(seconds, int | float):
            continue
        if way and (point["step"] <= way[-1][0] or seconds <= way[-1][1]):
            way.clear()  # training went back
        way.append((point["step"], seconds))
    if not way:
        return None
    (first, began), (last, ended) = way[0] if len(way) > 1 else (0, 0.0), way[-1]
    return (total - last) * (ended - began) / (last - first) if last > first else None


def _words(line: Line) -> str:
    if "event" in line:
        told = f"{line['event']}: {line.get('text', '')}"
    else:
        named = {
            str(key).removeprefix("train/"): value for key, value in line.items() if key not in ("step", "seconds")
        }
        told = ", ".join(f"{key} {_number(value)}" for key, value in named.items())
    return one_line(f"step {line['step']}: {told}")


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _record(path: Path) -> Line:
    try:
        return _object(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}


def _object(value: object) -> Line:
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int | None:
    return value if type(value) is int else None
