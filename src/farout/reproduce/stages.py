"""What a table takes, stage by stage: train, sample, evaluate, attack; with a deadline, one slice of a campaign."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from farout.config.compose import parent_settings
from farout.config.settings import Settings
from farout.data import open_dataset
from farout.data.streams import holdout_split
from farout.engine.progress import say
from farout.errors import ConfigError, OutOfBudget
from farout.metrics.generation import INCEPTION_WEIGHTS
from farout.reproduce.costs import attack_seconds, evaluation_seconds, sampling_seconds
from farout.reproduce.rows import TableRequest
from farout.runs.checks import Checks
from farout.runs.dependencies import already_evaluated
from farout.runs.environment import choose_device
from farout.runs.evaluation import evaluate
from farout.runs.evaluation_files import complete_overview
from farout.runs.inputs import ImageSets, training_data
from farout.runs.recovery import set_aside_damage
from farout.runs.robustness import AttackPlan, already_attacked, assess
from farout.runs.run import Run, open_run, parent_run, run_of, settings_for
from farout.runs.sample_quality import frechet_facts, inception_facts
from farout.runs.samples import Sampler, Sampling, class_names, draw_samples, save_samples
from farout.runs.training import train

ATTACKS = {  # scale -> how JEM is attacked; full and medium: as scripts/robustness.py does by default
    "full": AttackPlan(),
    "medium": AttackPlan(),
    "small": AttackPlan({"linf": (1.0, 2.0, 4.0, 8.0), "l2": (0.25, 0.5, 1.0)}, images=50, steps=10, restarts=1),
    "demo": AttackPlan({"linf": (8.0, 32.0), "l2": (1.0, 4.0)}, images=30, steps=5, restarts=1, distal_steps=20),
}
CHAIN_STEPS = {"full": 200, "medium": 200, "small": 200, "demo": 20}  # scale -> of the chains that are shown


@dataclass(frozen=True)
class Stage(ABC):
    """One thing to do for a row; `kind` names it in plans."""

    kind: ClassVar[str]
    row: str
    settings: Settings
    device: torch.device

    @property
    def run(self) -> Run:
        """The run that it works on; asked anew each time, because what exists decides the precision."""
        return open_run(self.settings.run) if self.settings.run else run_of(self.settings, self.device)

    @property
    def own(self) -> Settings:
        """The settings that an evaluation goes by: what a named run fixes comes from its record."""
        return settings_for(self.settings, self.run) if self.settings.run else self.settings

    @property
    def needed_runs(self) -> list[Run]:
        """Those that must be trained before it can begin, besides its own."""
        return []

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether nothing of it is left."""

    @abstractmethod
    def work(self, deadline: float | None = None) -> None:
        """Do it; what can pause does so with OutOfBudget at the deadline (`time.monotonic()`), its state saved."""

    def seconds(self) -> float:
        """About how long `work` takes on this device, at least until it can pause."""
        return 0.0

    def done_lines(self) -> Sequence[str]:
        """What whoever waits for a whole table is told of a stage that was done before."""
        return ()


class Train(Stage):
    """Train a row's network."""

    kind = "train"

    @property
    def needed_runs(self) -> list[Run]:
        parent = parent_run(self.settings, self.device) if self.settings.init_from is not None else None
        return [] if parent is None else [parent]

    @property
    def done(self) -> bool:
        return self.run.finished

    def work(self, deadline: float | None = None) -> None:
        train(replace(self.settings, evaluate=False), deadline)


class Evaluate(Stage):
    """Evaluate a row's network, or the run that the row names."""

    kind = "evaluate"

    @property
    def done(self) -> bool:
        run = self.run
        return run.finished and already_evaluated(run, self.own)

    def work(self, deadline: float | None = None) -> None:
        evaluate(self.settings)

    def seconds(self) -> float:
        return evaluation_seconds(self.own, self.device)

    def done_lines(self) -> Sequence[str]:
        if self.settings.run:
            return ()
        run = self.run
        return f"{run.name} is finished: {run.folder}", f"nothing left to do; results: {run.results}"


@dataclass(frozen=True)
class Sample(Stage):
    """Draw samples of a JEM run: what scripts/sample.py RUN --by-class --chain --features CLASSIFIER does.

    That comes before the run's evaluation, so that its report shows them; samples that are there stay.
    """

    kind = "sample"
    chain_steps: int
    classifier: Stage | None  # whose features measure the samples of all seeds, so that distances compare

    @property
    def needed_runs(self) -> list[Run]:
        return [] if self.classifier is None else [self.classifier.run]

    @property
    def _folder(self) -> Path:
        return self.run.folder / "samples"

    @property
    def done(self) -> bool:
        return (self._folder / "samples.json").is_file()

    def work(self, deadline: float | None = None) -> None:
        run, folder, paths = self.run, self._folder, self.settings.paths.data_paths()
        sampler = Sampler(run, Sampling(chain_steps=self.chain_steps), self.device)
        samples = draw_samples(sampler, folder, class_names(run, paths), by_class=True, chain=True)
        facts = (self.device, self.settings.max_eval_images, sampler.sampling.seed)
        weights = paths.store / INCEPTION_WEIGHTS
        quality = {"run": run.name, "inception": inception_facts(samples, run, paths, weights, *facts)}
        if self.classifier is not None:
            quality["frechet_distance"] = frechet_facts(samples, run, self.classifier.run, paths, *facts)
        save_samples(folder, samples, quality)
        say(f"written: {folder}")

    def seconds(self) -> float:
        return sampling_seconds(self.settings, self.device, self.chain_steps)

    def done_lines(self) -> Sequence[str]:
        return (f"sampled already: {self._folder} (delete samples.json to draw again)",)


@dataclass(frozen=True)
class Attack(Stage):
    """Attack a JEM run beside every classifier of its seed: what scripts/robustness.py JEM_RUN CLASSIFIER does."""

    kind = "attack"
    plan: AttackPlan
    classifiers: tuple[Stage, ...]

    @property
    def needed_runs(self) -> list[Run]:
        return [classifier.run for classifier in self.classifiers]

    def _comparisons(self) -> Iterable[tuple[Run | None, AttackPlan]]:
        """Each classifier with what is to be measured beside it: ascents beside the first, which stay."""
        plan = self.plan
        for classifier in self.classifiers or (None,):
            yield None if classifier is None else classifier.run, plan
            plan = replace(plan, distal_steps=0)

    @property
    def done(self) -> bool:
        run, paths = self.run, self.settings.paths.data_paths()
        runs = [run, *(classifier.run for classifier in self.classifiers)]
        if not all(each.finished for each in runs):
            return False
        return all(already_attacked(run, baseline, plan, paths) for baseline, plan in self._comparisons())

    def work(self, deadline: float | None = None) -> None:
        run, paths = self.run, self.settings.paths.data_paths()
        for baseline, plan in self._comparisons():
            assess(run, baseline, plan, paths, self.device, deadline)

    def seconds(self) -> float:
        return attack_seconds(self.settings, self.device, self.plan)


def stages_of(request: TableRequest, device: torch.device) -> list[Stage]:
    """All stages in order: for each seed trainings, parents before children, then samples, evaluations and attacks.

    Every row is composed before the first one is worked on. A row with evaluate=false is only trained.
    """
    stages: list[Stage] = []
    classifier: Stage | None = None  # the first seed's
    for seed in request.seeds:
        rows = {row: request.settings(row, seed) for row in request.rows}
        evaluated = [Evaluate(row, own, device) for row, own in rows.items() if own.evaluate]
        classifiers = tuple(stage for stage in evaluated if stage.settings.method.name == "ce")
        classifier = classifier or next(iter(classifiers), None)
        generative = [stage for stage in evaluated if stage.settings.method.name == "jem"]
        steps, plan = CHAIN_STEPS[request.scale], ATTACKS[request.scale]
        for stage in (
            *(Train(row, own, device) for row, own in rows.items() if own.run is None),
            *(Sample(jem.row, jem.settings, device, steps, classifier) for jem in generative),
            *evaluated,
            *(Attack(jem.row, jem.settings, device, plan, classifiers) for jem in generative),
        ):
            _add(stages, stage)
    return stages


def stages_here(request: TableRequest) -> list[Stage]:
    """All stages, on the device that trainer.device chooses."""
    first = request.settings(request.rows[0], request.seeds[0])
    return stages_of(request, choose_device(first.trainer.device))


def _add(stages: list[Stage], stage: Stage) -> None:
    """Append a stage unless it is there already, after the training of its parent."""
    settings = stage.settings
    if settings.init_from == "auto" and settings.run is None:
        parent = replace(parent_settings(settings), composition=None)  # the words are the child's
        _add(stages, Train("pre-training", parent, stage.device))
    if not any((other.kind, other.run.folder) == (stage.kind, stage.run.folder) for other in stages):
        stages.append(stage)


def before(stage: Stage, stages: Sequence[Stage]) -> list[Stage]:
    """Which of the stages must be done before one of them: earlier ones of its run, and trainings that it needs."""
    needed = [run.folder for run in stage.needed_runs]
    earlier = stages[: stages.index(stage)]
    same = stage.run.folder
    return [
        each
        for each in earlier
        if (folder := each.run.folder) == same or (isinstance(each, Train) and folder in needed)
    ]


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
        evaluates, settings, paths = isinstance(stage, Evaluate), stage.own, ImageSets(stage.settings).paths
        for name, split in sorted(_needed(settings, evaluates)):
            open_dataset(name, split, paths)
        if evaluates and not stage.done:
            gaps |= Checks(settings).evaluation(_labels(settings)).missing
        elif isinstance(stage, Train) and not stage.done:
            Checks(replace(settings, evaluate=False)).training(training_data(settings))
    return gaps


def _needed(settings: Settings, evaluates: bool) -> set[tuple[str, str]]:
    """(set, split) of what a stage cannot do without."""
    own = settings.id_data
    needed = {(own.name, own.train_split), (own.name, "test")}
    if settings.outliers is not None and (settings.uses_outliers or evaluates):
        needed.add((str(settings.outliers), "train"))
    if settings.holdout > 0 and own.corruption_base is not None:
        needed.add((own.corruption_base, own.corruption_split))
    return needed


def _labels(settings: Settings) -> Tensor:
    """(N,) labels of what a row trains on."""
    images = open_dataset(settings.id_data.name, settings.id_data.train_split, ImageSets(settings).paths)
    if images.labels is None:
        raise ConfigError(f"id_data={images.name} has no labels: give class folders")
    return images.labels[holdout_split(len(images), settings.holdout, settings.holdout_rule)[0]]


def carry_out(stages: Sequence[Stage], deadline: float | None = None) -> bool:
    """Do what is left, in order, until the deadline (`time.monotonic()`); True when nothing is left.

    Training and attacks pause at the deadline. Other stages cannot, so they wait for the next slice where their
    estimated time exceeds what is left; but the first stage of a slice always starts, or a long one would never be
    done. A network whose files are damaged is trained again. Without a deadline it is said what was done before.
    """
    first = True
    for stage in stages:
        if isinstance(stage, Train):
            set_aside_damage(stage.run)
        if stage.done:
            if isinstance(stage, Evaluate):
                complete_overview(stage.run, stage.settings.paths)
            for line in stage.done_lines() if deadline is None else ():
                say(line)
            continue
        if not first and deadline is not None and time.monotonic() + stage.seconds() >= deadline:
            say(f"too little of the time budget is left for the next stage: {stage.kind} {stage.run.name}")
            return False
        first = False
        try:
            stage.work(deadline)
        except OutOfBudget as pause:
            if deadline is None:
                raise
            say(str(pause))
            return False
    return True
