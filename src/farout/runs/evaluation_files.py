"""What an evaluation leaves: in its run's folder scores, points, figures, report, and results.json last; index.html."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from farout.config.settings import Paths
from farout.engine.progress import say
from farout.errors import FaroutError, UnwritableError, one_line
from farout.files import follows, save_arrays, save_json, set_aside, writing
from farout.report.evidence import Evidence
from farout.report.figures.drawings import save_figures
from farout.report.marks import MARKS, encode_marks, marks_of, read_marks
from farout.report.overview.page import NAME, write_overview
from farout.report.page.html import write_report
from farout.report.page.rebuild import UNREADABLE, rebuild_report
from farout.report.page.training import save_training
from farout.runs.inputs import EvaluationData
from farout.runs.records import DamagedResults, read_results
from farout.runs.run import Run

Entries = list[dict[str, Any]]
Tell = Callable[[Entries, list[Path]], None]


def keep(run: Run, entries: Entries, evidence: Evidence, data: EvaluationData, tell: Tell) -> None:
    """Write all of it, and have W&B and other logs told by `tell(entries, PNG files)`; a run only read keeps nothing.

    results.json comes last: a repeated command takes it as proof that all of it is there, in the logs too.
    """
    try:
        _save_scores(run.folder / "scores", evidence, data, entries[0]["depends_on"])
        _save_points(run.folder / "geometry.npz", evidence)
        plots = _present(run, entries, evidence, data)
    except UnwritableError:
        if run.writable:
            raise
        say(f"  note: {run.folder} is only read, so nothing of this is kept: evaluate a copy of it to keep results")
        tell(entries, [])
        return
    try:
        tell(entries, plots)
    except Exception:  # a log that fails ends the command, and takes no result with it
        _append(run, entries)
        raise
    _append(run, entries)


def _save_scores(folder: Path, evidence: Evidence, data: EvaluationData, depends: Mapping[str, Any]) -> None:
    """scores/SET.npz: a float64 array per score in the set's order; for ID also label, prediction and confidence.

    Scores that earlier evaluations left of the very same images stay beside the new ones; those of others go.
    """
    for name, by_score in evidence.scores.items():
        path = folder / f"{name.replace('control:', 'control_')}.npz"
        marks = marks_of(depends, name)
        kept = _arrays_of_same(path, marks)
        own = {key: mark for key, mark in marks["scores"].items() if key in by_score}
        arrays = {**kept, **by_score, **(_id_arrays(evidence, data) if name == "id" else {})}
        scores = {key: mark for key, mark in {**_marks_in(kept), **own}.items() if key in arrays}
        arrays[MARKS] = encode_marks({"set": marks["set"], "scores": scores})
        save_arrays(path, arrays)


def _id_arrays(evidence: Evidence, data: EvaluationData) -> dict[str, Any]:
    """What stands beside the scores of the ID set, image by image, where its labels are known."""
    if data.id_test.labels is None:
        return {}
    arrays: dict[str, Any] = {"label": data.id_test.labels.numpy()}
    if "id" in evidence.pictures:
        arrays["prediction"] = evidence.pictures["id"].predictions
    if evidence.confidence is not None:
        arrays["confidence"] = evidence.confidence
    return arrays


def _arrays_of_same(path: Path, marks: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All arrays of a score file, marks too, where it belongs to the very images that `marks` name; else none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except UNREADABLE:  # absent, or damaged: then it is made anew
        return {}
    found = read_marks(arrays)
    return arrays if found is not None and found["set"] == marks["set"] else {}


def _marks_in(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return dict((read_marks(arrays) or {"scores": {}})["scores"])


def _save_points(path: Path, evidence: Evidence) -> None:
    """geometry.npz: what the pictures of the embedding are drawn from; an older evaluation's file never stays."""
    if evidence.sphere is None:
        with writing(path):
            path.unlink(missing_ok=True)
    else:
        save_arrays(path, evidence.sphere.arrays(), compress=True)


def _present(run: Run, entries: Entries, evidence: Evidence, data: EvaluationData) -> list[Path]:
    """Figures of the first entry, and report.html of all; the figures' PNG files."""
    heading = f"{run.name} on {data.id_test.info.get('title', data.id_test.name)}"
    paths, drawings = save_figures(run.folder / "plots", entries[0], evidence, heading)
    write_report(run.folder / "report.html", _head(run), entries, evidence, drawings, run=run.folder)
    return paths + save_training(run.folder, run.record, heading)


def _append(run: Run, entries: Entries) -> None:
    """results.json grows; a damaged one is moved aside, a foreign one is an error, neither is overwritten."""
    path, head = run.results, _head(run)
    try:
        known = read_results(run.folder)
    except DamagedResults as problem:
        say(f"{problem}: moved aside as {set_aside(path).name}; a new one begins")
        known = {"evaluations": []}
    if known.get("identity", head["identity"]) != head["identity"]:
        raise FaroutError(f"{path} belongs to another run: move it away and evaluate again")
    save_json(path, {**head, "evaluations": [*known["evaluations"], *entries]})


def _head(run: Run) -> dict[str, Any]:
    """What results.json and the report say of the run itself."""
    record = run.record
    head = {key: record.get(key) for key in ("run", "trained", "data", "validation")}
    for key in ("composition", "adopted"):  # what asked for it; trained elsewhere, perhaps rounded on the way
        head |= {key: record[key]} if key in record else {}
    return {**head, "identity": {**record["identity"], "scale": record.get("scale")}}


def renew_report(folder: Path) -> list[Path]:
    """A run's report again, where it has one, for what came after its evaluation; one that cannot be made again stays.

    Returns its path, or nothing.
    """
    if not (folder / "report.html").is_file():
        return []
    try:
        return [rebuild_report(folder)]
    except FaroutError as problem:
        say(f"  note: report.html stays as it was: {problem}")
        return []


def renew_overview(run: Run, paths: Paths) -> None:
    """The page of all runs beside the run's folder, where that is one of paths.outputs; what goes wrong is one line."""
    outputs = Path(paths.outputs)
    if run.writable and run.folder.resolve().parent == (outputs / "runs").resolve():
        renew_page(paths)


def complete_overview(run: Run, paths: Paths) -> None:
    """The page, where a command was stopped after a run's results and before it: no later one finds work to do."""
    if not follows(Path(paths.outputs) / NAME, run.results):
        renew_overview(run, paths)


def renew_page(paths: Paths) -> None:
    """The page of all runs of paths.outputs; what goes wrong is one line."""
    outputs = Path(paths.outputs)
    try:
        write_overview(outputs, paths.data_paths().store)
    except Exception as problem:  # whatever it is, what the page would show is done and kept
        said = problem if isinstance(problem, FaroutError) else f"{type(problem).__name__}: {problem}"
        say(one_line(f"  note: {outputs / NAME} stays as it was: {said}"))
