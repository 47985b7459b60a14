"""What the page takes from each run, kept beside the runs: after an evaluation only one run must be read anew."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from farout.errors import FaroutError
from farout.files import load_object, write_text
from farout.report.overview.listing import ListedRun, read_run

LAYOUT = 1  # of a digest; a new number has all of them made again
SEEN = ("run.json", "results.json", "weights.safetensors", "report.html")  # what a run's line follows from


def read_runs(outputs: Path) -> list[ListedRun]:
    """Every folder below outputs/runs, by name; digests in outputs/cache/page spare reading what has not changed.

    Raises OSError where outputs/runs cannot be listed.
    """
    folders = sorted(path for path in (outputs / "runs").iterdir() if path.is_dir() and not path.name.startswith("."))
    kept = outputs / "cache/page"
    runs = [_digest(folder, kept / f"{folder.name}.json") for folder in folders]
    _forget(kept, {folder.name for folder in folders})
    return runs


def _digest(folder: Path, path: Path) -> ListedRun:
    stamps = list(_stamps(folder))
    with suppress(FaroutError, TypeError, KeyError):
        known = load_object(path)
        if (known["layout"], known["stamps"]) == (LAYOUT, stamps):
            return ListedRun(**known["run"])
    run = read_run(folder)
    with suppress(FaroutError, ValueError):  # a folder that is only read, a name too long: read again next time
        write_text(path, json.dumps({"layout": LAYOUT, "stamps": stamps, "run": asdict(run)}))
    return run


def _stamps(folder: Path) -> Iterator[list[Any]]:
    """Size and time of each file that is there: an evaluation writes results.json last."""
    for name in SEEN:
        with suppress(OSError):
            facts = (folder / name).stat()
            yield [name, facts.st_size, facts.st_mtime_ns]


def _forget(kept: Path, names: set[str]) -> None:
    """Digests of runs that are gone."""
    for path in kept.glob("*.json"):
        if path.stem not in names:
            with suppress(OSError):
                path.unlink(missing_ok=True)
