"""Evaluate a finished run: one forward pass a set, all scores, the paper's protocol and the plain one."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch

from farout.config.parse import plain_protocol
from farout.config.settings import Settings
from farout.data import ImageSet
from farout.data.controls import as_jpeg, resampled
from farout.engine.background import Background
from farout.engine.evaluate import accuracy, correct
from farout.engine.precision import allow_tf32, full_fp32
from farout.engine.processes import ALONE, Processes
from farout.engine.progress import say
from farout.engine.stopping import told_as
from farout.errors import FaroutError
from farout.metrics import detection_metrics, expected_calibration_error
from farout.metrics.paired import paired_differences, paired_facts, pairs_within
from farout.metrics.protocol import CONTROL_TOLERANCE, Protocol, mean_over_sets, means_by_score, table_rows
from farout.report.evidence import Evidence, Pictures
from farout.runs.calibration import calibration_facts, confidence_of, held_out_temperature, reliability_bins
from farout.runs.checks import Checks, check_any, train_labels
from farout.runs.dependencies import EvaluationRequest
from farout.runs.devices import as_launched, device_of, follow, several_devices
from farout.runs.environment import choose_device, stamp
from farout.runs.evaluation_files import keep, renew_overview
from farout.runs.geometry import Geometry, probed
from farout.runs.inputs import EvaluationData, ImageSets, evaluation_data
from farout.runs.logger import RunLogger, require_packages, run_logger
from farout.runs.run import Run, open_run, run_of, settings_for
from farout.runs.scoring import Passes, Predictor, ready_scores, skip_unmeasurable
from farout.scores import Outputs

UNTRAINED = {
    "accuracy": None,
    "ece": None,
    "no_accuracy": "the classifier was never trained: accuracy, ECE and scores of logits mean nothing",
}

REFERENCES = ("msp", "energy")  # what every score is compared with, beside the method's own

ScoresOfSets = dict[str, dict[str, np.ndarray]]  # data set -> score -> (N,)


def evaluate(settings: Settings) -> None:
    """`eval.py`: evaluate the run that these settings mean, or the one that `run` names, and append to its results."""
    device = choose_device(settings.trainer.device)
    require_packages(settings.logger)
    settings = replace(settings, trainer=as_launched(settings.trainer))
    with several_devices(settings.trainer, device) as processes:
        own = device_of(processes, device)
        if processes.rank:
            follow(processes, own)
        else:
            _evaluate(settings, own, processes)


def _evaluate(settings: Settings, device: torch.device, processes: Processes) -> None:
    run = open_run(settings.run) if settings.run else run_of(settings, device)
    if not run.finished:
        state = "is not finished" if run.folder.exists() else "does not exist"
        raise FaroutError(
            f"{run.folder} {state}: train it with the same overrides (python train.py), or name one with run=PATH"
        )
    own = settings_for(settings, run) if settings.run else settings
    Checks(own).evaluation(train_labels(run, ImageSets(own).paths))
    allow_tf32(False)
    where = f"while {run.name} was evaluated: repeat the command to evaluate it"
    with run.locked(), run_logger(run, own, "evaluate") as logger, told_as(where):
        EvaluationJob(run, own, device, processes).carry_out(logger)


@dataclass(frozen=True)
class EvaluationJob:
    """A finished run, and how it is to be evaluated."""

    run: Run
    settings: Settings
    device: torch.device
    processes: Processes = ALONE

    def done(self) -> bool:
        """Whether results.json holds this very evaluation."""
        return EvaluationRequest(self.run, self.settings).answered()

    def carry_out(self, logger: RunLogger) -> None:
        """Evaluate and append to results.json; scores, plots, report and W&B beside it; the main figures are said.

        Raises MissingDataError where there is no OOD set, FaroutError where no score can be had; nothing is written
        then.
        """
        data = evaluation_data(self.settings)
        check_any(data, self.settings.ood_data.name)
        for name, reason in data.missing.items():
            say(f"  left out: {name} - {reason}")
        if not self.run.classifier_trained:
            say(f"  note: {UNTRAINED['no_accuracy']}")
        found = Evaluation(self, data)
        entries = found.entries()
        keep(self.run, entries, found.evidence(), data, logger.results)
        renew_overview(self.run, self.settings.paths)
        summarise(entries, self.run)


class Evaluation:
    """What the network and the scores make of every set: "id", OOD sets by name, "control:*".

    Attributes:
        values: set -> score -> (N,); predictions: set -> (N,).
        confidences: set -> (N,), at the held-out temperature; an untrained classifier has none, and its network's
            predictions are the nearest class means.
    """

    def __init__(self, job: EvaluationJob, data: EvaluationData) -> None:
        self.job, self.data, self.trained = job, data, job.run.classifier_trained
        self.predictor = Predictor(job.run, job.settings, job.device, job.processes)
        self.skipped: dict[str, str] = {}
        self.scores, self.score_facts = ready_scores(self.predictor, self.skipped)
        self.geometry = Geometry(self.predictor)
        self.temperature = held_out_temperature(self.predictor) if self.trained else None
        self.id_outputs = self.predictor.outputs(data.id_test)
        self.values: ScoresOfSets = {}
        self.predictions: dict[str, np.ndarray] = {}
        self.confidences: dict[str, torch.Tensor] = {}
        self._see_all({"id": data.id_test, **data.ood})
        skip_unmeasurable(self.values, self.skipped)

    def _see_all(self, sets: Mapping[str, ImageSet]) -> None:
        """One forward pass a set; what follows from it is worked out while the network is at the next set.

        The controls come last, because making them takes seconds; these too pass beside the network.
        """
        beside = ThreadPoolExecutor(1, "controls")
        with full_fp32(), Background() as background, beside:  # the precision of all, as no thread has its own
            controls = beside.submit(_controls, self.data.id_test)
            for name, image_set in chain(sets.items(), _items_of(controls)):
                passes = self.predictor.passes(self.scores, image_set)
                known = None if name.startswith("control:") else self.predictor.outputs(image_set)
                background.run(self._see, name, image_set, passes, known)
            background.wait()

    def _see(self, name: str, image_set: ImageSet, passes: Passes, outputs: Outputs | None) -> None:
        """All scores of a set and, but for a control, what else its outputs show."""
        self.values[name] = passes.values(self.scores)
        if outputs is None:
            return
        self.geometry.measure(name, image_set, outputs)
        if self.trained:
            self.predictions[name] = outputs.logits.argmax(1).numpy()
            self.confidences[name] = confidence_of(outputs, self.temperature)
        elif (nearest := self.geometry.predictions(outputs)) is not None:
            self.predictions[name] = nearest

    def entries(self) -> list[dict[str, Any]]:
        """For results.json: one entry under the chosen protocol and one under the plain protocol (all images)."""
        settings, plain = self.job.settings, plain_protocol()
        protocols = [settings.protocol] + ([plain] if settings.protocol.name != plain.name else [])
        depends = EvaluationRequest(self.job.run, settings).depends_on(self.data)
        shared = self._shared()
        entries = [{**shared, **_under(each, self.data, self.id_outputs, self.values)} for each in protocols]
        for entry in entries if settings.ood_data.groups else ():
            entry["group_means"] = _group_means(entry["rows"], settings.ood_data.groups)
        probe = {"linear_probe": probed(self.predictor, self.id_outputs)} if settings.linear_probe else {}
        for entry, protocol in zip(entries, protocols, strict=True):
            if protocol.bootstrap:
                entry["paired"] = _paired(protocol, self.values, entry["rows"], settings.method_score)
            entry |= {"geometry": self.geometry.facts(), "depends_on": depends}
            entry |= {"skipped_scores": self.skipped} if self.skipped else {}
            entry["id"] |= probe if self.trained else {**probe, **UNTRAINED}
            if self.trained:
                entry["id"]["reliability"] = reliability_bins(self.id_outputs, protocol.bins)
                known = (self.id_outputs, self.confidences, self.temperature)
                entry["calibration"] = calibration_facts(protocol, *known)
        return entries

    def _shared(self) -> dict[str, Any]:
        """What is the same under every protocol."""
        settings, data = self.job.settings, self.data
        return {
            **stamp(self.job.device),
            "ood_data": settings.ood_data.name,
            "scale": settings.scale,
            "max_eval_images": settings.max_eval_images,
            "scores": self.score_facts,
            "missing": [{"ood": name, "reason": reason} for name, reason in data.missing.items()],
            "duplicates": data.duplicates,
            "controls": _control_rows(self.values),
        }

    def evidence(self) -> Evidence:
        """What figures and the report are drawn from."""
        data, labels = self.data, self.data.id_test.labels
        pictures = {
            name: Pictures(image_set.images, self.predictions[name], labels if name == "id" else None)
            for name, image_set in {"id": data.id_test, **data.ood}.items()
            if name in self.predictions
        }
        return Evidence(
            self.values,
            confidence_of(self.id_outputs).numpy() if self.trained else None,
            correct(self.id_outputs).numpy() if self.trained else None,
            pictures,
            data.id_test.classes,
            self.job.settings.method_score,
            self.geometry.sphere(data.id_test.classes),
        )


def _items_of(sets: "Future[dict[str, ImageSet]]") -> Iterator[tuple[str, ImageSet]]:
    """Once they are there."""
    yield from sets.result().items()


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


def _under(protocol: Protocol, data: EvaluationData, id_outputs: Outputs, values: ScoresOfSets) -> dict[str, Any]:
    facts = {name: _set_facts(name, image_set) for name, image_set in data.ood.items()}
    rows = table_rows(protocol, values, facts, data.id_test.name)
    return {
        "protocol": asdict(protocol),
        "id": _id_facts(data.id_test, id_outputs, protocol.bins),
        "rows": rows,
        "means": means_by_score(rows),
    }


def _group_means(rows: list[dict[str, Any]], groups: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """The mean of each score over the sets of each group, as far as they were evaluated."""
    found = []
    for score in dict.fromkeys(row["score"] for row in rows):
        for group, sets in groups.items():
            own = [row for row in rows if row["score"] == score and row["ood"] in sets]
            if own:
                found.append({"score": score, "group": group, **mean_over_sets(own)})
    return found


def _paired(
    protocol: Protocol, values: ScoresOfSets, rows: list[dict[str, Any]], method_score: str | None
) -> dict[str, Any]:
    """Every score less softmax, less energy, and less the method's own score, on the same images."""
    found = {(row["score"], row["ood"]): row for row in rows}
    sets = ["id", *dict.fromkeys(row["ood"] for row in rows)]
    pairs = pairs_within(values["id"], [name for name in (*REFERENCES, method_score) if name])
    say(f"  paired intervals: {protocol.bootstrap} resamples of {len(values['id'])} scores on {len(sets) - 1} sets")
    differences = paired_differences(protocol, {name: values[name] for name in sets}, found, pairs)
    return {
        **paired_facts(protocol),
        "differences": [
            {"first": first, "second": second, **difference}
            for ((first,), (second,)), of_pair in zip(pairs, differences, strict=True)
            for difference in of_pair
        ],
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


def summarise(evaluations: list[dict[str, Any]], run: Run) -> None:
    """The figures that one wants at once; the rest is in results.json."""
    first = evaluations[0]
    say(f"{run.name}: {_accuracy_text(first)}")
    for mean in [*first["means"], *first.get("group_means", ())]:
        over = f"{mean['votes']} {mean['group']} sets" if "group" in mean else f"{mean['votes']} sets"
        say(
            f"  {mean['score']}: mean over {over} FPR95 {100 * mean['fpr95']:.2f} "
            f"AUROC {100 * mean['auroc']:.2f} ({first['protocol']['name']} protocol)"
        )
    if run.writable:
        say(f"results: {run.results}")


def _accuracy_text(entry: dict[str, Any]) -> str:
    """Accuracy and calibration, or what stands for them where the classifier was never trained."""
    known = entry["id"]
    if known["accuracy"] is None:
        parts = ["classifier not trained"]
        nearest = entry["geometry"].get("features", {}).get("nearest_class_accuracy")
        parts += [] if nearest is None else [f"nearest class mean right in {100 * nearest:.2f} %"]
    else:
        parts = [f"accuracy {100 * known['accuracy']:.2f} %", f"ECE {100 * known['ece']:.2f} %"]
    if "linear_probe" in known:
        parts.append(f"linear probe {100 * known['linear_probe']['accuracy']:.2f} %")
    return ", ".join(parts)
