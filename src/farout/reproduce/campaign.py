"""The rows of a table, one stage after another, within a budget of time: what there is to do, and doing it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from farout.config.compose import compose_settings, parent_settings
from farout.config.settings import ROOT, Settings
from farout.data import open_dataset
from farout.data.streams import holdout_split
from farout.engine.evaluate import collect
from farout.engine.progress import say
from farout.errors import ConfigError
from farout.reproduce.slices import progress_of
from farout.runs.checks import check_evaluation, check_training
from farout.runs.dependencies import already_evaluated
from farout.runs.evaluation import evaluate
from farout.runs.inputs import absence, capped, known_paths, training_data
from farout.runs.run import Run, build_backbone, open_run, parent_run, run_of, settings_for
from farout.runs.training import OutOfBudget, TrainingJob, train

# Rows of a table, most valuable first: each is a file of conf/experiment, as `experiment` names it.
TABLES = {
    "energy": ("softmax", "energy_ft", "oe_ft"),
    "oe": ("baseline", "oe_tune", "oe_scratch"),
    "cider": ("ce", "cider", "supcon"),
    "jem": ("ce", "jem", "ce_plain"),
    "demo": ("softmax", "energy_ft", "oe_ft"),
    "demo_cider": ("ce", "cider", "supcon"),
    "demo_jem": ("ce", "jem"),
}
# What the campaign decides for every row, and the option that does so: not to be overridden behind its back.
OWN_OPTIONS = {
    "experiment": "--table and --rows",
    "method": "--rows",
    "id_data": "--id",
    "scale": "--scale",
    "seed": "--seeds",
    "init_from": "--init",
    "paths.outputs": "--outputs",
    "trainer.budget_minutes": "--minutes",
}
METRICS_AND_PLOTS = 15.0  # seconds of an evaluation besides the forward passes; a guess on the safe side


def folder_of(table: str) -> str:
    """The folder of conf/experiment that holds a table's rows, PAPER/SCALE."""
    return {"demo": "energy/demo", "demo_cider": "cider/demo", "demo_jem": "jem/demo"}.get(table, f"{table}/full")


def experiment(table: str, id_data: str, row: str) -> str:
    """The name of a row's file of conf/experiment: PAPER/SCALE/ID_ROW."""
    return f"{folder_of(table)}/{id_data}_{row}"


@dataclass(frozen=True)
class Campaign:
    """What the command line asks for."""

    table: str
    id_data: str
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    outputs: Path
    scale: str | None = None
    init: Path | None = None
    overrides: tuple[str, ...] = ()

    def settings(self, row: str, seed: int) -> Settings:
        """One row's settings, composed as `python train.py experiment=PAPER/SCALE/ID_ROW seed=SEED ...` would."""
        words = [f"experiment={experiment(self.table, self.id_data, row)}", *self.overrides, f"seed={seed}"]
        settings = compose_settings(words + ([] if self.scale is None else [f"scale={self.scale}"]))
        settings = replace(settings, paths=replace(settings.paths, outputs=str(self.outputs)))
        if self.init is None:
            return settings
        if settings.init_from == "auto":
            return replace(settings, init_from=str(self.init))
        # The cross-entropy row is then the named network itself.
        return replace(settings, run=str(self.init)) if settings.method.name == "ce" else settings

    def check(self) -> None:
        """Raise ConfigError, in one line, where the table has no such row or an override is an option's business."""
        for row in self.rows:
            folder = ROOT / "conf/experiment" / folder_of(self.table)
            if not (ROOT / f"conf/experiment/{experiment(self.table, self.id_data, row)}.yaml").is_file():
                there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
                raise ConfigError(f"{self.table} has no row {self.id_data}_{row}: choose --id and --rows from {there}")
        for word in self.overrides:
            key = word.lstrip("+~").partition("=")[0]
            if key in OWN_OPTIONS:
                raise ConfigError(f"{word} would change every row: use {OWN_OPTIONS[key]}")


@dataclass(frozen=True)
class Stage:
    """One thing to do: train a row's network, or evaluate it."""

    kind: Literal["train", "evaluate"]
    row: str
    settings: Settings
    device: torch.device

    @property
    def run(self) -> Run:
        """The run that it works on; asked anew each time, because what exists decides the precision."""
        return open_run(self.settings.run) if self.settings.run else run_of(self.settings, self.device)

    @property
    def done(self) -> bool:
        """Whether nothing of it is left."""
        run = self.run
        if self.kind == "train" or not run.finished:
            return run.finished
        return already_evaluated(run, self.own)

    @property
    def own(self) -> Settings:
        """The settings that an evaluation goes by: what a named run fixes comes from its record."""
        return settings_for(self.settings, self.run) if self.settings.run else self.settings

    def work(self, deadline: float) -> None:
        """Do it; training pauses with OutOfBudget at the deadline (`time.monotonic()`), its state saved."""
        if self.kind == "train":
            train(replace(self.settings, evaluate=False), deadline)
        else:
            evaluate(self.settings)


def plan(campaign: Campaign, device: torch.device) -> list[Stage]:
    """All stages in order: for each seed the trainings, parents before children, and then the evaluations."""
    campaign.check()
    stages: list[Stage] = []
    for seed in campaign.seeds:
        rows = {row: campaign.settings(row, seed) for row in campaign.rows}
        wanted = [Stage("train", row, own, device) for row, own in rows.items() if own.run is None]
        wanted += [Stage("evaluate", row, own, device) for row, own in rows.items() if own.evaluate]
        for stage in wanted:
            _add(stages, stage)
    return stages


def _add(stages: list[Stage], stage: Stage) -> None:
    """Append a stage unless it is there already, after the training of its parent."""
    settings = stage.settings
    if settings.init_from == "auto" and settings.run is None:
        _add(stages, Stage("train", "pre-training", parent_settings(settings), stage.device))
    if not any((other.kind, other.run.folder) == (stage.kind, stage.run.folder) for other in stages):
        stages.append(stage)


def runs_of(stages: Sequence[Stage]) -> list[Run]:
    """Every run that the stages work on or start from."""
    runs = [stage.run for stage in stages]
    named = [parent_run(stage.settings, stage.device) for stage in stages if stage.settings.init_from is not None]
    return list({run.folder: run for run in [*runs, *named] if run is not None}.values())


def check_data(stages: Sequence[Stage]) -> dict[str, str]:
    """Open every set that no stage can do without; returns the OOD sets that are left out, with the reason.

    Evaluation needs the outliers too: images that they share with an OOD set are dropped from it.

    Raises:
        MissingDataError: one is neither in the store nor in a pack.
    """
    gaps: dict[str, str] = {}
    for stage in stages:
        settings, paths = stage.own, known_paths(stage.settings)
        own = settings.id_data
        needed = {(own.name, own.train_split), (own.name, "test")}
        if settings.outliers is not None and (settings.uses_outliers or stage.kind == "evaluate"):
            needed.add((str(settings.outliers), "train"))
        if settings.holdout > 0 and own.corruption_base is not None:
            needed.add((own.corruption_base, own.corruption_split))
        for name, split in sorted(needed):
            open_dataset(name, split, paths)
        if stage.kind == "evaluate" and not stage.done:
            gaps |= check_evaluation(settings, _labels(settings)).missing
        elif stage.kind == "train" and not stage.done:
            check_training(replace(settings, evaluate=False), training_data(settings))
    return gaps


def _labels(settings: Settings) -> Tensor:
    """(N,) labels of what a row trains on."""
    images = open_dataset(settings.id_data.name, settings.id_data.train_split, known_paths(settings))
    if images.labels is None:
        raise ConfigError(f"id_data={images.name} has no labels: give class folders")
    return images.labels[holdout_split(len(images), settings.holdout, settings.holdout_rule)[0]]


def carry_out(stages: Sequence[Stage], deadline: float) -> bool:
    """Do what is left, in order, until the deadline (`time.monotonic()`); True when nothing is left.

    Training pauses at the deadline. An evaluation cannot, so it waits for the next slice where its estimated time
    exceeds what is left; but the first stage of a slice always starts, or a long one would never be done.
    """
    first = True
    for stage in stages:
        if stage.done:
            continue
        if not first and time.monotonic() + _least_seconds(stage) >= deadline:
            say(f"too little of the time budget is left for the next stage: {stage.kind} {stage.run.name}")
            return False
        first = False
        try:
            stage.work(deadline)
        except OutOfBudget as pause:
            say(str(pause))
            return False
    return True


def _least_seconds(stage: Stage) -> float:
    """The time that a stage must have to be worth starting."""
    return 0.0 if stage.kind == "train" else evaluation_seconds(stage.own, stage.device)


@dataclass(frozen=True)
class Forecast:
    """What is left of a stage: its state in words, updates still to do (training only), seconds."""

    state: str
    steps: int | None
    seconds: float


class Forecaster:
    """Forecasts from one short timing of each row on this device, shared by its seeds."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[int, float]] = {}
        self.evaluations: dict[str, float] = {}

    def __call__(self, stage: Stage) -> Forecast:
        """Time what has not been timed; a stage that is done needs no timing."""
        if stage.done:
            return Forecast("done", None, 0.0)
        if stage.kind == "evaluate":
            if stage.row not in self.evaluations:
                self.evaluations[stage.row] = evaluation_seconds(stage.own, stage.device)
            return Forecast("to do", None, self.evaluations[stage.row])
        if stage.row not in self.steps:
            self.steps[stage.row] = training_cost(stage.settings, stage.device)
        total, seconds = self.steps[stage.row]
        progress = progress_of(stage.run)
        step = 0 if progress is None else progress.step
        return Forecast(f"step {step:,} of {total:,}" if step else "to do", total - step, (total - step) * seconds)


def training_cost(settings: Settings, device: torch.device) -> tuple[int, float]:
    """(updates in all, seconds of one), timed in the precision that the run will have, uncompiled."""
    job = TrainingJob.of(settings, device)
    return job.total_steps, job.step_seconds()


def evaluation_seconds(settings: Settings, device: torch.device) -> float:
    """The time of an evaluation, from one timed batch of the ID test set through an untrained network."""
    paths, limit = settings.paths.data_paths(), settings.max_eval_images
    id_test = open_dataset(settings.id_data.name, "test", paths)
    names = [name for name in settings.ood_data.sets if absence(name, settings, paths) is None]
    counts = [len(capped(open_dataset(name, "test", paths), limit)) for name in names]
    images = sum(counts) + 3 * len(capped(id_test, limit))  # ID itself and its two controls
    images += settings.geometry_images or 0
    sample = replace(capped(id_test, settings.trainer.eval_batch_size), name="timing")
    model = build_backbone(settings.backbone, settings.id_data.num_classes).to(device)
    transform = settings.transform.build()
    collect(model, transform, sample, device)  # warm-up
    start = time.monotonic()
    collect(model, transform, sample, device)
    return METRICS_AND_PLOTS + images * (time.monotonic() - start) / len(sample)
