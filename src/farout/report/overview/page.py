"""index.html from the runs of a folder: one file that loads nothing, its script and data inside."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from farout.errors import FaroutError, MissingDataError, one_line
from farout.files import write_text, writing
from farout.report.overview.curves import sources
from farout.report.overview.digests import read_runs
from farout.report.overview.document import document
from farout.report.overview.listing import ListedRun
from farout.report.overview.references import references
from farout.report.overview.thumbnails import contact_sheet
from farout.report.sweeps.records import STATES as JOB_STATES
from farout.report.sweeps.records import SweepFolder, sweeps_of

HERE = Path(__file__).parent
NAME = "index.html"
CURVE_BYTES = 6_000_000  # of what runs are compared by, the latest first; of all images of all sets together
SHEET_BYTES = 2_000_000
PATIENCE = 10.0  # seconds to wait for another process that writes the same page
STATES = {
    "evaluated": "has results",
    "trained": "finished, not evaluated",
    "begun": "training goes on, or was interrupted",
    "damaged": "a file of it cannot be read",
    "half-written": "a folder without run.json",
    "set aside": "moved aside by a command that found it damaged",
}
FILTERS = {"method": "method", "data": "data", "scale": "scale", "protocol": "protocol", "state": "state"}


def write_overview(outputs: Path, store: Path | None = None) -> Path:
    """Write outputs/index.html from the folders of outputs/runs, and return its path.

    `store` is where images lie, for small pictures of them. Raises MissingDataError where there is no folder of runs,
    FaroutError where another process writes the page and does not end, UnwritableError.
    """
    if not (outputs / "runs").is_dir():
        raise MissingDataError(
            f"there is no folder {outputs / 'runs'}: name a folder that holds runs/, such as outputs"
        )
    path, lock = outputs / NAME, outputs / "runs/.locks" / f"{NAME}.lock"
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Whoever comes last reads the folders last: no run that is done is missing from the page that stays.
            with FileLock(lock, timeout=PATIENCE):
                write_text(path, page(read_runs(outputs), store, sweeps_of(outputs)))
        except Timeout:
            raise FaroutError(f"{path} is being written by another process: repeat the command") from None
    return path


def page(runs: Sequence[ListedRun], store: Path | None = None, sweeps: Sequence[SweepFolder] = ()) -> str:
    """The whole document."""
    rows = [row for run in runs for row in _rows(run)]
    reported = references({(run.facts["method"], run.facts["data"]) for run in runs if run.facts})
    curves = dict(_within_budget(runs))
    scores = _scores(rows)
    data = {
        "rows": [{key: row[key] for key in ("run", "facts", "evaluation")} for row in rows],
        "references": reported,
        "curves": curves,
        "sheets": {} if store is None else dict(_sheets(curves.values(), store)),
    }
    return document(
        HERE / "overview",
        data,
        rows=rows,
        references=[row for row in reported if any(value is not None for value in row["mean"])],
        scores=scores,
        filters={key: _options(rows, key) for key in FILTERS},
        states=STATES,
        tally=Counter(run.state for run in runs),
        problems=[run for run in runs if run.problem],
        sweeps=[_sweep(each) for each in sweeps],
        without_curves=[run.name for run in runs if run.curves and run.name not in curves],
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _sweep(folder: SweepFolder) -> dict[str, Any]:
    """A sweep's name, what became of its jobs, and where its own page is."""
    reported = (folder.path / "sweep.html").is_file()
    try:
        states = Counter(job.state for job in folder.jobs())
        said = ", ".join(f"{states[state]} {state}" for state in JOB_STATES if states[state])
    except FaroutError as problem:
        said = one_line(str(problem).replace(f"{folder.path}/", ""))
    link = f"sweeps/{quote(os.fsencode(folder.name))}/sweep.html" if reported else None
    return {"name": folder.name, "said": said, "link": link}


def _rows(run: ListedRun) -> Iterator[dict[str, Any]]:
    """A line of the table for each evaluation of a run, or one for a run without any."""
    link = f"runs/{quote(os.fsencode(run.name))}/report.html" if run.reported else None
    shared = {"run": run.name, "state": run.state, "link": link, "facts": run.facts, "problem": run.problem}
    for evaluation in run.evaluations or [{}]:
        yield {**shared, "evaluation": evaluation}


def _scores(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every score of the table: those that stand for some run first, then those that most have."""
    own = Counter(row["evaluation"].get("own") for row in rows)
    there = Counter(score for row in rows for score in row["evaluation"].get("means", ()))
    return sorted(there, key=lambda score: (-own[score], -there[score], score))


def _options(rows: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    values = {str(_value(row, key)) for row in rows if _value(row, key) is not None}
    return sorted(values)


def _value(row: Mapping[str, Any], key: str) -> Any:
    return row["state"] if key == "state" else row["facts"].get(key) or row["evaluation"].get(key)


def _within_budget(runs: Iterable[ListedRun]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Curves of the latest runs, until they are as much as a page should hold."""
    left = CURVE_BYTES
    for run in sorted(runs, key=_latest, reverse=True):
        size = len(json.dumps(run.curves))
        if run.curves and size <= left:
            left -= size
            yield run.name, run.curves


def _latest(run: ListedRun) -> str:
    return max((str(evaluation["date"]) for evaluation in run.evaluations), default="")


def _sheets(curves: Iterable[Mapping[str, Any]], store: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Which images -> a few of them, one picture for all runs that were measured on these."""
    wanted = {images: known for of_run in curves for images, known in sources(of_run)}
    left = SHEET_BYTES
    for images, known in wanted.items():
        with suppress(OSError, ValueError):
            sheet = contact_sheet(known, store)
            if sheet is not None and len(sheet["jpeg"]) <= left:
                left -= len(sheet["jpeg"])
                yield images, sheet
