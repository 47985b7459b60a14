"""Evaluate a finished run: one forward pass a set, all scores, the paper's protocol and the plain one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from farout.config.settings import Settings, plain_protocol
from farout.data import ImageSet
from farout.data.controls import as_jpeg, resampled
from farout.engine.evaluate import accuracy, correct
from farout.engine.progress import say
from farout.errors import FaroutError, UnwritableError
from farout.files import save_arrays, save_json, set_aside, writing
from farout.metrics import detection_metrics, expected_calibration_error
from farout.metrics.protocol import CONTROL_TOLERANCE, Protocol, apply, mean_over_sets
from farout.report.evidence import Evidence, Pictures
from farout.report.figures.drawings import save_figures
from farout.report.marks import MARKS, marks_of, written
from farout.report.marks import read as read_marks
from farout.report.page.html import write_report
from farout.report.page.rebuild import UNREADABLE, rebuild_report
from farout.report.page.training import save_training
from farout.runs.calibration import calibration_facts, confidence_of, held_out_temperature
from farout.runs.checks import check_any
from farout.runs.dependencies import already_evaluated, dependencies
from farout.runs.environment import stamp
from farout.runs.geometry import Geometry, probed
from farout.runs.inputs import EvaluationData, evaluation_data
from farout.runs.logger import RunLogger
from farout.runs.records import DamagedResults, read_results
from farout.runs.run import Run
from farout.runs.scoring import Predictor, ready_scores, skip_unmeasurable
from farout.scores import Outputs, Score

UNTRAINED = {
    "accuracy": None,
    "ece": None,
    "no_accuracy": "the classifier was never trained: accuracy, ECE and scores of logits mean nothing",
}

__all__ = ["already_evaluated", "evaluate_run", "renew_report"]

ScoresOfSets = dict[str, dict[str, np.ndarray]]  # data set -> score -> (N,)


@dataclass
class Observed:
    """What the network made of every set ("id", OOD sets by name, "control:*")."""

    values: ScoresOfSets = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    confidences: dict[str, torch.Tensor] = field(default_factory=dict)  # at the held-out temperature


def evaluate_run(run: Run, settings: Settings, device: torch.device, logger: RunLogger) -> list[dict[str, Any]]:
    """Evaluate and append to results.json; scores, plots, report and W&B beside it. Returns the new entries.

    Raises MissingDataError where there is no OOD set, FaroutError where no score can be had; nothing is written then.
    """
    data = evaluation_data(settings)
    check_any(data, settings)
    for name, reason in data.missing.items():
        say(f"  left out: {name} - {reason}")
    if not run.classifier_trained:
        say(f"  note: {UNTRAINED['no_accuracy']}")
    predictor = Predictor(run, settings, device)
    skipped: dict[str, str] = {}
    scores, facts = ready_scores(predictor, settings, skipped)
    geometry = Geometry(predictor)
    temperature = held_out_temperature(predictor) if run.classifier_trained else None
    id_outputs = predictor.outputs(data.id_test)
    observed = _observe(predictor, scores, data, temperature, geometry)
    skip_unmeasurable(observed.values, skipped)
    depends = dependencies(run, settings, data)
    evaluations = _evaluations(settings, data, id_outputs, observed.values, facts, device)
    probe = {"linear_probe": probed(predictor, id_outputs)} if settings.linear_probe else {}
    for entry in evaluations:
        protocol = Protocol(**entry["protocol"])
        entry |= {"geometry": geometry.facts(), "depends_on": depends}
        entry |= {"skipped_scores": skipped} if skipped else {}
        entry["id"] |= probe if run.classifier_trained else {**probe, **UNTRAINED}
        if run.classifier_trained:
            entry["calibration"] = calibration_facts(protocol, id_outputs, observed.confidences, temperature)
    evidence = replace(_evidence(data, id_outputs, observed, settings), sphere=geometry.sphere(data.id_test.classes))
    logger.results(evaluations, _keep(run, evaluations, observed, evidence, data, depends))
    return evaluations


def _keep(
    run: Run,
    evaluations: list[dict[str, Any]],
    observed: Observed,
    evidence: Evidence,
    data: EvaluationData,
    depends: Mapping[str, Any],
) -> list[Path]:
    """Write scores, points, figures, report and results; the figures' PNG files. A run that is only read keeps none."""
    try:
        _save_scores(run.folder / "scores", observed.values, data.id_test, evidence, depends)
        _save_points(run.folder / "geometry.npz", evidence)
        plots = _present(run, evaluations, evidence, data)
        _append(run, evaluations)  # last: a repeated command takes results.json as proof that all of it is there
    except UnwritableError:
        if run.writable:
            raise
        say(f"  note: {run.folder} is only read, so nothing of this is kept: evaluate a copy of it to keep results")
        return []
    return plots


def _observe(
    predictor: Predictor,
    scores: Mapping[str, Score],
    data: EvaluationData,
    temperature: float | None,
    geometry: Geometry,
) -> Observed:
    """One forward pass a set, and all scores off its outputs.

    An untrained classifier has no confidence; its network's predictions are the nearest class means.
    """
    observed = Observed()
    for name, image_set in {"id": data.id_test, **data.ood, **_controls(data.id_test)}.items():
        observed.values[name] = predictor.values(scores, image_set)
        if name.startswith("control:"):
            continue
        outputs = predictor.outputs(image_set)
        geometry.measure(name, image_set, outputs)
        if predictor.run.classifier_trained:
            observed.predictions[name] = outputs.logits.argmax(1).numpy()
            observed.confidences[name] = confidence_of(outputs, temperature)
        elif (nearest := geometry.predictions(outputs)) is not None:
            observed.predictions[name] = nearest
    return observed


def _evidence(data: EvaluationData, id_outputs: Outputs, observed: Observed, settings: Settings) -> Evidence:
    """What figures and the report are drawn from."""
    labels = data.id_test.labels
    pictures = {
        name: Pictures(image_set.images, observed.predictions[name], labels if name == "id" else None)
        for name, image_set in {"id": data.id_test, **data.ood}.items()
        if name in observed.predictions
    }
    trained = bool(observed.confidences)
    return Evidence(
        observed.values,
        confidence_of(id_outputs).numpy() if trained else None,
        correct(id_outputs).numpy() if trained else None,
        pictures,
        data.id_test.classes,
        settings.method_score,
    )


def _present(run: Run, evaluations: list[dict[str, Any]], evidence: Evidence, data: EvaluationData) -> list[Path]:
    """Figures of the first entry, and report.html of all; the figures' PNG files."""
    heading = f"{run.name} on {data.id_test.info.get('title', data.id_test.name)}"
    paths, drawings = save_figures(run.folder / "plots", evaluations[0], evidence, heading)
    write_report(run.folder, _head(run), evaluations, evidence, drawings, run=run.folder)
    return paths + save_training(run.folder, run.record, heading)


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


def _controls(id_test: ImageSet) -> dict[str, ImageSet]:
    """ID images that only went through a resampling filter or a codec: no detector of objects should see them."""
    pixels = id_test.images.numpy()
    made = {"resampled": resampled(pixels), "jpeg": as_jpeg(pixels)}
    return {
        f"control:{name}": replace(
            id_test, name=name, images=torch.from_numpy(np.ascontiguousarray(images)), folder=None
        )
        for name, images in made.items()
    }


def _evaluations(
    settings: Settings,
    data: EvaluationData,
    id_outputs: Outputs,
    values: ScoresOfSets,
    facts: Mapping[str, Mapping[str, Any]],
    device: torch.device,
) -> list[dict[str, Any]]:
    """One entry under the chosen protocol and one under the plain protocol (all images)."""
    plain = plain_protocol()
    protocols = [settings.protocol] + ([plain] if settings.protocol.name != plain.name else [])
    shared = {
        **stamp(device),
        "ood_data": settings.ood_data.name,
        "scale": settings.scale,
        "max_eval_images": settings.max_eval_images,
        "scores": facts,
        "missing": [{"ood": name, "reason": reason} for name, reason in data.missing.items()],
        "duplicates": data.duplicates,
        "controls": _control_rows(values),
    }
    return [{**shared, **_under(protocol, data, id_outputs, values)} for protocol in protocols]


def _under(protocol: Protocol, data: EvaluationData, id_outputs: Outputs, values: ScoresOfSets) -> dict[str, Any]:
    rows = [
        {
            "score": score,
            **_set_facts(name, data.ood[name]),
            **apply(protocol, id_scores, values[name][score], name, score, data.id_test.name),
        }
        for score, id_scores in values["id"].items()
        for name in data.ood
    ]
    means = []
    for score in values["id"]:
        own = [row for row in rows if row["score"] == score]
        if own:
            means.append({"score": score, **mean_over_sets(own)})
    return {
        "protocol": asdict(protocol),
        "id": _id_facts(data.id_test, id_outputs, protocol.bins),
        "rows": rows,
        "means": means,
    }


def _set_facts(name: str, image_set: ImageSet) -> dict[str, Any]:
    info = image_set.info
    return {
        "ood": name,
        "title": info.get("title", name),
        "stand_in_for": info.get("stand_in_for"),
        "vote": info.get("vote") or name,
        "sha256": info.get("sha256"),
    }


def _id_facts(id_test: ImageSet, outputs: Outputs, bins: int) -> dict[str, Any]:
    confidence = confidence_of(outputs)
    return {
        "dataset": id_test.name,
        "split": id_test.split,
        "n": len(id_test),
        "accuracy": accuracy(outputs),
        "ece": expected_calibration_error(confidence, correct(outputs), bins),
        "ece_bins": bins,
        "info": id_test.info,
    }


def _control_rows(values: ScoresOfSets) -> list[dict[str, Any]]:
    rows = []
    for name in values:
        if not name.startswith("control:"):
            continue
        for score, id_scores in values["id"].items():
            names = (f"{score} scores of ID", f"{score} scores of {name}")
            auroc = detection_metrics(id_scores, values[name][score], names=names)["auroc"]
            warning = abs(auroc - 0.5) > CONTROL_TOLERANCE
            rows.append({"control": name.split(":")[1], "score": score, "auroc": auroc, "warning": warning})
    return rows


def _append(run: Run, evaluations: list[dict[str, Any]]) -> None:
    """results.json grows; a damaged one is moved aside, a foreign one is an error, neither is overwritten."""
    path, head = run.results, _head(run)
    try:
        known = read_results(run.folder)
    except DamagedResults as problem:
        say(f"{problem}: moved aside as {set_aside(path).name}; a new one begins")
        known = {"evaluations": []}
    if known.get("identity", head["identity"]) != head["identity"]:
        raise FaroutError(f"{path} belongs to another run: move it away and evaluate again")
    save_json(path, {**head, "evaluations": [*known["evaluations"], *evaluations]})


def _head(run: Run) -> dict[str, Any]:
    """What results.json and the report say of the run itself."""
    record = run.record
    head = {key: record.get(key) for key in ("run", "trained", "data", "validation")}
    return {**head, "identity": {**record["identity"], "scale": record.get("scale")}}


def _save_scores(
    folder: Path, values: ScoresOfSets, id_test: ImageSet, evidence: Evidence, depends: Mapping[str, Any]
) -> None:
    """scores/SET.npz: a float64 array per score in the set's order; for ID also label, prediction and confidence.

    Scores that earlier evaluations left of the very same images stay beside the new ones; those of others go.
    """
    for name, by_score in values.items():
        extra: dict[str, Any] = {}
        if name == "id" and id_test.labels is not None:
            extra["label"] = id_test.labels.numpy()
            if "id" in evidence.pictures:
                extra["prediction"] = evidence.pictures["id"].predictions
            if evidence.confidence is not None:
                extra["confidence"] = evidence.confidence
        path = folder / f"{name.replace('control:', 'control_')}.npz"
        marks = marks_of(depends, name)
        kept = _arrays_of_same(path, marks)
        own = {key: mark for key, mark in marks["scores"].items() if key in by_score}
        arrays = {**kept, **by_score, **extra}
        scores = {key: mark for key, mark in {**_marks_in(kept), **own}.items() if key in arrays}
        arrays[MARKS] = written({"set": marks["set"], "scores": scores})
        save_arrays(path, arrays)


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
