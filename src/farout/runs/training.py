"""Train a run: find or train its parent, resume what was interrupted, validate on the holdout, export the weights."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from farout.backbones import Backbone
from farout.config.coerce import locate
from farout.config.compose import parent_settings
from farout.config.settings import Settings
from farout.data.streams import EpochShuffle, outlier_stream, steps_per_epoch
from farout.engine import stopping
from farout.engine.batches import PASS_SIZE, DeviceBatches, Stream, repeated
from farout.engine.checkpoint import weights_content
from farout.engine.evaluate import accuracy, collect, share_correct
from farout.engine.fit import Batches, Callbacks, Checkpointing, FitResult, Optimisation, Select, fit, seconds_per_step
from farout.engine.precision import allow_tf32
from farout.engine.profiling import StepProfiler
from farout.engine.progress import say
from farout.engine.restarts import Restart
from farout.engine.states import begun, forget
from farout.errors import FaroutError
from farout.files import write_bytes
from farout.methods import Method
from farout.metrics import detection_metrics
from farout.runs.checks import check_evaluation, check_training, train_labels
from farout.runs.environment import choose_device, conditions, stamp
from farout.runs.evaluation import already_evaluated, evaluate_run
from farout.runs.geometry import nearest_class_accuracy
from farout.runs.image_log import ImageLog
from farout.runs.inputs import TrainingData, capped, corruption_sets, training_data
from farout.runs.logger import RunLogger, require_package, run_logger
from farout.runs.overrides import evaluation_record
from farout.runs.recovery import recover
from farout.runs.run import (
    Run,
    build_backbone,
    open_run,
    parent_run,
    resolve_precision,
    run_of,
    settings_for,
    targets_of,
)
from farout.runs.scoring import head_of, score_file
from farout.scores import Fitting

COMPILE_FROM_STEPS = 2000  # torch.compile takes a minute or two; shorter runs never earn it back


class OutOfBudget(FaroutError):
    """trainer.budget_minutes is spent; the state is saved and the same command goes on from it."""


def train(settings: Settings, deadline: float | None = None) -> float | None:
    """Train (or resume, or find finished) the run of these settings, then evaluate it.

    Returns the validation figure for sweepers, to be minimised: mean FPR95 of the method's own score on the holdout
    against the validation corruptions; None where there is no holdout.
    """
    device = choose_device(settings.trainer.device)
    require_package(settings.logger)
    if deadline is None and settings.trainer.budget_minutes is not None:
        deadline = time.monotonic() + 60 * settings.trainer.budget_minutes
    data = training_data(settings)
    run = run_of(settings, device)
    if not run.finished:
        check_training(settings, data)
    with run.locked():
        _train_and_evaluate(run, settings, data, device, deadline)
    validation = run.record.get("validation")
    return None if validation is None else float(validation["fpr95"])


def _train_and_evaluate(
    run: Run, settings: Settings, data: TrainingData, device: torch.device, deadline: float | None, asked: bool = True
) -> None:
    """What is left to do of a run; the caller holds its lock. The parent comes first, in a log of its own.

    A run that was `asked` for keeps how its command evaluates; a parent's own command may yet say otherwise.
    """
    recover(run, settings, data)
    if run.finished:
        forget(run.checkpoint)  # killed between the weights and this
        say(f"{run.name} is finished: {run.folder}")
        if not settings.evaluate or already_evaluated(run, settings):
            say(f"nothing left to do; results: {run.results}")
            return
    parent = None if run.finished else _ensure_parent(settings, device, deadline)
    run.folder.mkdir(parents=True, exist_ok=True)
    if not (run.folder / "run.json").exists():
        run.write_record(scale=settings.scale, targets=targets_of(settings), data=data.record())
    if asked and "evaluation" not in run.record:
        run.write_record(evaluation=evaluation_record(settings))
    with run_logger(run, settings) as logger:
        if not run.finished:
            _train(run, parent, settings, data, device, deadline, logger)
        if settings.evaluate:
            with _known_as(f"while {run.name}, which is trained, was evaluated: repeat the command to evaluate it"):
                summarise(evaluate_run(run, settings, device, logger), run)


@contextmanager
def _known_as(where: str) -> Iterator[None]:
    """What a signal that ends the command in here is told as."""
    try:
        yield
    except KeyboardInterrupt:
        raise stopping.Interrupted(where) from None
    except stopping.Terminated:
        raise stopping.Terminated(where) from None


def _ensure_parent(settings: Settings, device: torch.device, deadline: float | None) -> Run | None:
    """The run whose weights training starts from, trained first where init_from=auto finds none."""
    parent = parent_run(settings, device)
    if parent is not None and settings.holdout > 0 and parent.identity["holdout"] != settings.holdout:
        say(f"note: {parent.name} was trained on the holdout too; pretrain.holdout={settings.holdout:g} keeps it out")
    if parent is None or settings.init_from != "auto":
        return parent
    own = replace(parent_settings(settings), evaluate=False)
    with parent.locked():
        data = training_data(own)
        recover(parent, own, data)
        if parent.finished:
            say(f"starts from {parent.name}")
        else:
            say(f"needs {parent.name}, which {_prospect(parent, own, data, device)}")
            _train_and_evaluate(parent, own, data, device, deadline, asked=False)
    return parent


def _prospect(run: Run, settings: Settings, data: TrainingData, device: torch.device) -> str:
    """What training a parent will take: estimated from a few steps on a copy, where there are many to come."""
    if begun(run.checkpoint):
        return "was interrupted and goes on first"
    steps = steps_of(settings, data)[0]
    if steps < 100:
        return f"is trained first ({steps} steps)"
    minutes = steps * estimate_step_seconds(settings, data, device) / 60
    return f"is trained first: {steps} steps, about {minutes:.0f} min on this device"


def estimate_step_seconds(settings: Settings, data: TrainingData, device: torch.device) -> float:
    """Seconds per update of these settings, from a short timing on throwaway networks."""
    torch.manual_seed(0)
    model = build_backbone(settings.backbone, settings.id_data.num_classes)
    method: Method = settings.method.build().to(device)
    place(model, settings, resolve_precision(settings, device), device)
    return seconds_per_step(model, method, batches_of(settings, data, device), optimisation_of(settings))


def steps_of(settings: Settings, data: TrainingData) -> tuple[int, int]:
    """(updates in all, updates per epoch of labelled images)."""
    drop_last = locate(settings.method.target).drop_last
    per_epoch = steps_per_epoch(len(data.train_rows), settings.schedule.batch_size, drop_last)
    return settings.schedule.total_steps(per_epoch), per_epoch


def optimisation_of(settings: Settings) -> Optimisation:
    """The optimiser's part of the schedule."""
    schedule = settings.schedule
    return Optimisation(
        schedule.lr,
        schedule.lr_end,
        schedule.momentum,
        schedule.nesterov,
        schedule.weight_decay,
        schedule.learning_rate(),
        schedule.optimizer,
    )


def batches_of(settings: Settings, data: TrainingData, device: torch.device) -> DeviceBatches:
    """The streams that the method wants, on the device."""
    schedule, seed = settings.schedule, settings.seed
    _, per_epoch = steps_of(settings, data)
    method = locate(settings.method.target)

    def shuffled(name: str) -> EpochShuffle:
        return EpochShuffle(len(data.train_rows), schedule.batch_size, seed, name, device, method.drop_last)

    images = data.labelled.images
    streams = {"labelled": Stream(images, data.labelled.labels, data.train_rows, shuffled("labelled"))}
    if "unlabelled" in method.streams:
        streams["unlabelled"] = Stream(images, None, data.train_rows, shuffled("unlabelled"))
    if data.outliers is not None and data.outlier_rows is not None:
        order = outlier_stream(
            len(data.outlier_rows), schedule.outliers_per_update(), seed, settings.outlier_order, per_epoch, device
        )
        streams["outliers"] = Stream(
            data.outliers.images, None, data.outlier_rows, order, outliers=True, raw=data.outliers.raw
        )
    transform = settings.transform.build()
    return DeviceBatches(streams, transform, seed, device, settings.trainer.channels_last)


def place(model: Backbone, settings: Settings, precision: str, device: torch.device) -> None:
    """Move the network to the device in the run's precision and memory layout."""
    model.to(device)
    if settings.trainer.channels_last:
        model.to_channels_last()
    model.autocast_dtype = torch.bfloat16 if precision == "bf16" else None


def _train(
    run: Run,
    parent: Run | None,
    settings: Settings,
    data: TrainingData,
    device: torch.device,
    deadline: float | None,
    logger: RunLogger,
) -> None:
    allow_tf32(run.identity["precision"] == "tf32")
    model, method = _fresh(run, parent, settings, device)
    total, per_epoch = steps_of(settings, data)
    batches = batches_of(settings, data, device)
    every = settings.trainer.log_every
    image_log = ImageLog(run.folder / "samples", batches.transform, total, every, logger.picture)
    resumed = "resumes" if begun(run.checkpoint) else "trains"
    say(f"{run.name} {resumed}: {total} steps in {run.identity['precision']} on {device}")
    compiled = _compiles(settings, total, device)
    if compiled:
        model.compile_trunk()
    facts = conditions(device, settings.trainer.channels_last, compiled)
    with _looked_into(run, settings, batches, device) as seen:
        result = fit(
            model,
            method,
            seen,
            optimisation_of(settings),
            total,
            steps_per_epoch=per_epoch,
            seed=settings.seed,
            checkpointing=_checkpointing(run, settings, data, deadline, facts),
            start=model.load_pretrained if parent is None else None,
            train_images=batches.train_images,
            restart_policy=settings.schedule.restart_policy(),
            select=_selection(settings, data, device),
            graphs=settings.trainer.compile is not False,
            callbacks=Callbacks(
                settings.method.name, logger.log, every, image_log, partial(_tell, run, logger), run.name
            ),
        )
    if not result.finished:
        raise OutOfBudget(f"the time budget is spent at step {result.step} of {total} of {run.name}: repeat to go on")
    allow_tf32(False)  # what follows measures
    again = "goes on from its last checkpoint" if begun(run.checkpoint) else "starts it afresh"
    with _known_as(f"after the last step of {run.name}, before its weights were written: the same command {again}"):
        _finish(run, model, method, settings, data, device, result)


@contextmanager
def _looked_into(run: Run, settings: Settings, batches: DeviceBatches, device: torch.device) -> Iterator[Batches]:
    """The batches that training gets, while that is watched as the files of conf/debug/ ask for it."""
    trainer, seen = settings.trainer, repeated(batches, settings.schedule.overfit_batches)
    with ExitStack() as stack:
        if trainer.detect_anomaly:
            stack.enter_context(torch.autograd.set_detect_anomaly(True))
        if trainer.profile:
            seen = stack.enter_context(StepProfiler(run.folder / "profile", device)).watched(seen)
        yield seen


def _tell(run: Run, logger: RunLogger, restart: Restart) -> None:
    """A divergence that training survived, for whoever watches."""
    say(f"{run.name}: {restart.reason}; on from step {restart.resumed_from} with other random numbers")
    logger.alert(restart.diverged_at, "training diverged", restart.reason, {"resumed_from": restart.resumed_from})


def _fresh(run: Run, parent: Run | None, settings: Settings, device: torch.device) -> tuple[Backbone, Method]:
    """Network and method as they are built: initialised from the seed, or with the parent's weights."""
    torch.manual_seed(settings.seed)
    model = build_backbone(settings.backbone, settings.id_data.num_classes)
    method: Method = settings.method.build()
    if parent is not None:
        parent.load(model)
    place(model, settings, run.identity["precision"], device)
    return model, method.to(device)


def _compiles(settings: Settings, total: int, device: torch.device) -> bool:
    """Whether torch.compile of the trunk pays, or was asked for."""
    wanted = settings.trainer.compile
    return wanted is True or (wanted == "auto" and device.type == "cuda" and total >= COMPILE_FROM_STEPS)


def _selection(settings: Settings, data: TrainingData, device: torch.device) -> Select | None:
    """Accuracy on the whole holdout, where the best weights are kept; its batches are of one size on every machine."""
    if settings.keep == "last":
        return None
    transform, holdout = settings.transform.build(), data.labelled.subset(data.holdout_rows)
    return lambda model: share_correct(cast(Backbone, model), transform, holdout, device, PASS_SIZE)


def _checkpointing(
    run: Run, settings: Settings, data: TrainingData, deadline: float | None, facts: Mapping[str, Any]
) -> Checkpointing:
    trainer = settings.trainer
    identity = hashlib.sha256(json.dumps(run.identity, sort_keys=True).encode()).hexdigest()
    return Checkpointing(
        run.checkpoint,
        trainer.checkpoint_minutes,
        trainer.checkpoint_steps,
        deadline,
        tag=data.tag,
        owner=f"{run.name} {identity}",
        conditions=facts,
    )


def _finish(
    run: Run,
    model: Backbone,
    method: Method,
    settings: Settings,
    data: TrainingData,
    device: torch.device,
    result: FitResult,
) -> None:
    """Validate, record, export. The weights come last: their presence means that the run is whole."""
    model.eval()
    model.autocast_dtype = None
    parts: dict[str, Any] = {"trained": _trained(device, result)}
    if not method.trains_classifier:
        parts["classifier_trained"] = False
    if len(data.holdout_rows):
        parts["validation"] = validate(model, method, settings, data, device)
    contents = {run.method_state: weights_content(method)} if method.state_dict() else {}
    contents[run.weights] = weights_content(model)
    files = {path.name: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    run.write_record(**parts, files=files)
    for path, content in contents.items():
        write_bytes(path, content)
    forget(run.checkpoint)
    say(f"{run.name} finished: {result.step} steps in {result.seconds / 60:.1f} min")


def _trained(device: torch.device, result: FitResult) -> dict[str, Any]:
    """How training went, for the record."""
    best = None if result.best is None else dict(result.best)
    return {
        **stamp(device),
        "seconds": round(result.seconds, 1),
        "steps": result.step,
        "losses": result.losses,
        "conditions": [dict(entry) for entry in result.conditions],
        **({"restarts": [asdict(restart) for restart in result.restarts]} if result.restarts else {}),
        **({} if best is None else {"kept": {"accuracy": best.pop("figure"), **best}}),
    }


def validate(
    model: Backbone, method: Method, settings: Settings, data: TrainingData, device: torch.device
) -> dict[str, Any]:
    """Accuracy on the holdout, and the method's own score against the validation corruptions (never a test set).

    ID is positive and all images count; `fpr95` is the mean over the corruptions, by which the papers chose margins.
    A score that is fitted sees the images that trained. An untrained classifier has no accuracy; the nearest class
    mean's stands beside it, by that name, where training outputs are at hand.
    """
    size = settings.trainer.eval_batch_size
    observe = partial(collect, model, settings.transform.build(), device=device, batch_size=size)
    score = score_file(settings.method_score).build()
    train = None
    if "train" in score.needs:
        train = observe(capped(data.labelled.subset(data.train_rows), settings.max_fit_images))
    score.fit(Fitting(head_of(model), train))
    holdout = capped(data.labelled.subset(data.holdout_rows), settings.max_eval_images)
    id_outputs = observe(holdout)
    id_scores = score(id_outputs)
    rows = {}
    for kind, image_set in corruption_sets(settings, len(holdout)).items():
        ood_scores = score(observe(image_set))
        names = (f"{settings.method_score} scores of the holdout", f"{settings.method_score} scores of {kind}")
        rows[kind] = detection_metrics(id_scores, ood_scores, names=names)
    return {
        "score": settings.method_score,
        "n": len(holdout),
        "accuracy": accuracy(id_outputs) if method.trains_classifier else None,
        **({} if train is None else {"nearest_class_accuracy": nearest_class_accuracy(train, id_outputs)}),
        **{metric: float(np.mean([row[metric] for row in rows.values()])) for metric in ("fpr95", "auroc")},
        "corruptions": rows,
    }


def evaluate(settings: Settings) -> None:
    """`eval.py`: evaluate the run that these settings mean, or the one that `run` names, and append to its results."""
    device = choose_device(settings.trainer.device)
    run = open_run(settings.run) if settings.run else run_of(settings, device)
    if not run.finished:
        state = "is not finished" if run.folder.exists() else "does not exist"
        raise FaroutError(
            f"{run.folder} {state}: train it with the same overrides (train.py), or name one with run=PATH"
        )
    own = settings_for(settings, run) if settings.run else settings
    check_evaluation(own, train_labels(run, own))
    allow_tf32(False)
    where = f"while {run.name} was evaluated: repeat the command to evaluate it"
    with run.locked(), run_logger(run, own) as logger, _known_as(where):
        summarise(evaluate_run(run, own, device, logger), run)


def summarise(evaluations: list[dict[str, Any]], run: Run) -> None:
    """The figures that one wants at once; the rest is in results.json."""
    first = evaluations[0]
    say(f"{run.name}: {_accuracy_text(first)}")
    for mean in first["means"]:
        say(
            f"  {mean['score']}: mean over {mean['votes']} sets FPR95 {100 * mean['fpr95']:.2f} "
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
