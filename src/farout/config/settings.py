"""What one command asks for: plain dataclasses, and the only place where an option's default stands."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from farout.config.coerce import Component
from farout.data.paths import DataPaths, default_paths
from farout.data.rules import HoldoutRule, OutlierOrder
from farout.engine.restarts import RestartPolicy
from farout.engine.schedules import Algorithm, LRSchedule, Shape, WarmUp
from farout.errors import ConfigError
from farout.metrics.protocol import Protocol
from farout.places import ROOT as ROOT  # the tests', who look for files of the repository

if TYPE_CHECKING:
    from farout.engine.fit import Optimisation

Keep = Literal["last", "best"]  # which weights of a run
Precision = Literal["fp32", "bf16", "tf32"]  # of the network's trunk while it trains


# Of a field that came after the first runs: records leave it out at its default, so that those runs are still found.
LATER = {"left out of records at its default": True}


def defaults_of(kind: type, only_later: bool = False) -> dict[str, Any]:
    """The fields of a dataclass that have a default, and it; with `only_later` those that records leave out at it."""
    found = {}
    for entry in fields(kind):
        if only_later and entry.metadata != LATER:
            continue
        if entry.default is not MISSING:
            found[entry.name] = entry.default
        elif entry.default_factory is not MISSING:
            found[entry.name] = entry.default_factory()
    return found


@dataclass(frozen=True)
class Schedule:
    """Length, batches and optimiser of one training run; one file of conf/schedule, and what those need not say."""

    epochs: int
    batch_size: int
    lr: float
    lr_end: float
    momentum: float
    nesterov: bool
    weight_decay: float
    max_steps: int | None = None  # stop after so many updates; None: after the epochs
    outlier_batch_size: int | None = None  # beside each batch, of methods that train on outliers

    # The learning rate. cosine: lower with every update, to lr_end; epoch_cosine: the same for a whole epoch; steps:
    # times lr_factor after milestones, the last epochs (from 0) at the old rate.
    lr_schedule: Shape = field(default="cosine", metadata=LATER)
    milestones: list[int] = field(default_factory=list, metadata=LATER)
    lr_factor: float = field(default=0.1, metadata=LATER)
    # Of epoch_cosine and steps: a linear rise from warm_up_lr, update by update, for so many epochs or updates.
    warm_up_epochs: int = field(default=0, metadata=LATER)
    warm_up_lr: float = field(default=0.001, metadata=LATER)
    warm_up_steps: int = field(default=0, metadata=LATER)
    # Mirror a slip of the official CIDER code: epoch 0 of the warm-up runs at rates below zero.
    negative_first_epoch: bool = field(default=False, metadata=LATER)

    # Train on the run's first so many batches over and over; None: on all.
    overfit_batches: int | None = field(default=None, metadata=LATER)
    optimizer: Algorithm = field(default="sgd", metadata=LATER)  # sgd; adam: betas (momentum, 0.999)

    # Training that diverges: the loss is NaN, infinite or, in size, above loss_bound.
    # None: any finite loss will do; with a number, or max_restarts, every step's loss is looked at.
    loss_bound: float | None = field(default=None, metadata=LATER)
    # How often to go back to the last good state and on with other random numbers; 0: give up.
    max_restarts: int = field(default=0, metadata=LATER)
    # What every restart multiplies the learning rate by.
    restart_lr_factor: float = field(default=1.0, metadata=LATER)
    # Updates between those states; None: a quarter of an epoch (50 at least), or of the run.
    restart_every: int | None = field(default=None, metadata=LATER)

    def record(self) -> dict[str, Any]:
        """What determines a network's weights, less what came later and stands at its default."""
        usual = defaults_of(Schedule, only_later=True)
        return {key: value for key, value in asdict(self).items() if key not in usual or value != usual[key]}

    def learning_rate(self) -> LRSchedule:
        """The learning rate as a function of the update."""
        warm_up = WarmUp(self.warm_up_lr, self.warm_up_epochs, self.negative_first_epoch, self.warm_up_steps)
        return LRSchedule(
            self.lr_schedule,
            self.epochs,
            tuple(self.milestones),
            self.lr_factor,
            warm_up if self.warm_up_epochs or self.warm_up_steps else None,
        )

    def optimisation(self) -> "Optimisation":
        """The optimiser's part."""
        from farout.engine.fit import Optimisation  # and with it PyTorch, which most checks do without

        return Optimisation(
            self.lr,
            self.lr_end,
            self.momentum,
            self.nesterov,
            self.weight_decay,
            self.learning_rate(),
            self.optimizer,
        )

    def restart_policy(self) -> RestartPolicy:
        """What happens when training diverges."""
        return RestartPolicy(self.max_restarts, self.loss_bound, self.restart_lr_factor, self.restart_every)

    def check(self) -> None:
        """Raise ConfigError where a value cannot train anything."""
        for name in ("epochs", "batch_size", "outlier_batch_size", "max_steps", "overfit_batches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1")
        if self.lr <= 0:
            raise ConfigError(f"lr={self.lr:g} must be positive")
        if self.lr_end < 0 or self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise ConfigError("lr_end and weight_decay must be at least 0, momentum in [0, 1)")
        if self.nesterov and self.momentum == 0:
            raise ConfigError("momentum=0 leaves nothing for Nesterov's step: add nesterov=false")
        if self.nesterov and self.optimizer != "sgd":
            raise ConfigError(f"nesterov is SGD's step, not {self.optimizer}'s: add nesterov=false")
        self._check_lr_schedule()
        self._check_restarts()

    def _check_restarts(self) -> None:
        """Refuse what would end every run at once, or restart for ever in the same way."""
        if self.loss_bound is not None and not self.loss_bound > 0:
            raise ConfigError(f"loss_bound={self.loss_bound:g} must be positive, e.g. 1e8; null: any finite loss")
        if self.max_restarts < 0:
            raise ConfigError(f"max_restarts={self.max_restarts} must not be negative: 0 gives up at once")
        if not 0 < self.restart_lr_factor <= 1:
            raise ConfigError(f"restart_lr_factor={self.restart_lr_factor:g} must lie in (0, 1]: it multiplies lr")
        if self.restart_every is not None and self.restart_every < 1:
            raise ConfigError(f"restart_every={self.restart_every} counts updates: at least 1, or null")

    def _check_lr_schedule(self) -> None:
        """Refuse what the chosen learning rate schedule would not look at, or could not follow."""
        if self.milestones and self.lr_schedule != "steps":
            raise ConfigError(f"milestones={self.milestones} are of lr_schedule=steps: add it, or milestones=[]")
        if self.milestones != sorted(set(self.milestones)) or any(epoch < 0 for epoch in self.milestones):
            raise ConfigError(f"milestones={self.milestones} are epochs from 0 in rising order, e.g. [100,150,180]")
        if self.lr_schedule == "steps" and not 0 < self.lr_factor <= 1:
            raise ConfigError(f"lr_factor={self.lr_factor:g} must lie in (0, 1]: each milestone multiplies lr by it")
        if not 0 <= self.warm_up_epochs < max(1, self.epochs):
            raise ConfigError(f"warm_up_epochs={self.warm_up_epochs} must be fewer than epochs={self.epochs}, or 0")
        if (self.warm_up_epochs or self.warm_up_steps) and self.lr_schedule == "cosine":
            raise ConfigError("a warm-up has no place in lr_schedule=cosine: choose epoch_cosine or steps")
        if self.warm_up_steps < 0 or (self.warm_up_steps and self.warm_up_epochs):
            raise ConfigError(f"warm_up_steps={self.warm_up_steps}: at least 0, and not beside warm_up_epochs")
        if self.negative_first_epoch and not self.warm_up_epochs:
            raise ConfigError("negative_first_epoch is a slip in the warm-up: set warm_up_epochs, e.g. 10")
        if self.warm_up_lr < 0:
            raise ConfigError(f"warm_up_lr={self.warm_up_lr:g} must not be negative")

    def outliers_per_update(self) -> int:
        """How many outliers go with each batch; raises ConfigError where nobody said."""
        if self.outlier_batch_size is None:
            raise ConfigError("outlier_batch_size is missing: set outlier_batch_size=...")
        return self.outlier_batch_size

    def total_steps(self, steps_per_epoch: int) -> int:
        """Updates of the whole run: whole epochs, capped by max_steps."""
        steps = self.epochs * steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)


@dataclass(frozen=True)
class IdData:
    """The in-distribution data set, and the images whose corruptions are the OOD sets of selection on a holdout.

    A set that is read where it lies has a `folder` with a folder for each class of `class_list`; the classes are then
    part of its `name`. Without a `corruption_base` nothing can be selected.
    """

    name: str
    num_classes: int
    corruption_base: str | None = None
    corruption_split: str = "test"
    train_split: str = "train"
    folder: str | None = None
    class_list: str | None = None

    def record(self) -> dict[str, Any]:
        """What determines a network's weights."""
        return {"name": self.name, "num_classes": self.num_classes, "train_split": self.train_split}


@dataclass(frozen=True)
class OodData:
    """A named list of OOD test sets, and which of them have a mean of their own beside that of all."""

    name: str
    sets: list[str]
    near: list[str] = field(default_factory=list)
    far: list[str] = field(default_factory=list)

    @property
    def groups(self) -> dict[str, list[str]]:
        """The sets of each mean of its own, by its name."""
        return {name: sets for name, sets in (("near", self.near), ("far", self.far)) if sets}


@dataclass(frozen=True)
class TrainerSettings:
    """How to run, none of it part of a run's identity but the resolved precision."""

    device: str = "auto"  # auto: CUDA where there is one; cpu, cuda, cuda:1, ...
    devices: int = 1  # that train and evaluate together; under torchrun as many as it has started
    # Statistics of batch norm in training on several devices: of the whole batch, as on one; or each device of its own.
    batch_norm: Literal["global", "local"] = "global"
    # auto: bf16 on GPUs that have it, fp32 on CPUs that have not, elsewhere what a timing finds before a long run. fp32
    # is that on CUDA too, tf32 PyTorch's own default there (runs from before 2026-12 say fp32 for it). Part of the run,
    # kept on resume.
    precision: Literal["auto", "fp32", "bf16", "tf32"] = "auto"
    # graphs: on CUDA whole updates are replayed as CUDA graphs; true: and torch.compile makes the trunk; auto: on CUDA
    # graphs, for runs long enough to repay it true, on a CPU what a timing finds before a long run; false: neither.
    compile: Literal["auto", "graphs", True, False] = "auto"
    channels_last: bool = True
    # When the state is written matters to nothing but the work that a kill loses.
    checkpoint_minutes: float | None = 2.0
    checkpoint_steps: int | None = None
    budget_minutes: float | None = None  # stop after so long, with the state saved; the same command goes on
    # Images of a forward pass; null: 500 on a GPU, 125 on a CPU, where WRN-40-2 takes 1.5 times as long by 500.
    eval_batch_size: int | None = None
    cache_gib: float = 4.0  # outputs kept on disk for further scores, oldest out first; 0: none
    log_every: int = 50
    detect_anomaly: bool = False  # stop at the operation whose gradient is NaN, with a traceback; slow (debug=default)
    profile: bool = False  # record some updates with torch.profiler into the run's folder (debug=profile)

    @property
    def norms_locally(self) -> bool:
        """Whether the number of devices is part of what is trained."""
        return self.devices > 1 and self.batch_norm == "local"

    def eval_batch(self, on_gpu: bool) -> int:
        """Images of a forward pass in an evaluation on such a device."""
        return self.eval_batch_size or (500 if on_gpu else 125)

    def check(self) -> None:
        """Raise ConfigError where a value means nothing."""
        for name in ("checkpoint_steps", "devices", "eval_batch_size", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"trainer.{name}={value} must be at least 1")
        for name in ("checkpoint_minutes", "budget_minutes", "cache_gib"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"trainer.{name}={value:g} must not be negative")


LoggerName = Literal["wandb", "csv", "tensorboard", "none"]


@dataclass(frozen=True)
class LoggerSettings:
    """Where curves and results go besides the JSON lines of the run folder, and what Weights & Biases is told.

    Each file of conf/logger switches one on, so that several go together: logger=[wandb,csv].
    """

    name: LoggerName | None = None  # this one alone (none: none), whatever stands below
    wandb: bool = False
    csv: bool = False
    tensorboard: bool = False
    mode: Literal["online", "offline", "shared", "disabled"] = "offline"  # of W&B
    # None: W&B's own variable (WANDB_PROJECT, WANDB_ENTITY, ...), else what `farout.runs.wandb_log` has for it.
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] | None = None
    notes: str | None = None
    # Some fifty times a run: the accuracy on so many images of the holdout, always the same; 0: never.
    accuracy_images: int = 500

    @property
    def names(self) -> tuple[str, ...]:
        """The loggers that run."""
        if self.name is not None:
            return () if self.name == "none" else (self.name,)
        return tuple(name for name in ("wandb", "csv", "tensorboard") if getattr(self, name))

    def check(self) -> None:
        """Raise ConfigError where a value means nothing."""
        if self.accuracy_images < 0:
            raise ConfigError(f"logger.accuracy_images={self.accuracy_images} must not be negative: 0 draws no curve")


@dataclass(frozen=True)
class Paths:
    """Folders."""

    outputs: str = "outputs"
    data: str | None = None  # the image store; None: $FAROUT_DATA, else data/
    packs: str | None = None  # where packs lie; None: $FAROUT_PACKS, else packs/, or ../shared/data where there is one

    def data_paths(self) -> DataPaths:
        """The image store, the packs and the catalogue."""
        default = default_paths()
        return replace(
            default,
            store=Path(self.data) if self.data else default.store,
            packs=Path(self.packs) if self.packs else default.packs,
        )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What stands at the root beside the schedule and the method's own knobs."""

    scale: str  # its file of conf/scale says so itself
    seed: int = 1
    # The data set whose training images are the outliers of methods that train on some.
    outliers: str | None = "random_images_300k"
    # shuffle, or window: the papers' contiguous window, for outlier sets whose order means something.
    outlier_order: OutlierOrder = "shuffle"
    # How many of them take part in training, drawn by the seed; null: all.
    max_outlier_images: int | None = field(default=None, metadata=LATER)
    # The share of the training images kept from training, for selection and thresholds; which images: permuted and last
    # are the Outlier Exposure code's rules, jem is JEM's.
    holdout: float = 0.0
    holdout_rule: HoldoutRule = field(default="permuted", metadata=LATER)
    # The last update's weights; best: of the epoch of highest accuracy on the holdout.
    keep: Keep = field(default="last", metadata=LATER)
    # So many times while it trains the figure on the holdout, evenly spaced: for curves, and for sweeps that prune.
    validations: int = 0
    init_from: str | None = None  # auto: the matching cross-entropy run, trained first if need be; a run folder
    evaluate: bool = True  # after training, with ood_data, score and protocol
    max_eval_images: int | None = None  # of each evaluated set (smoke runs); None: all
    max_fit_images: int | None = None  # ID training images that scores such as knn are fitted on; None: all
    max_tune_images: int | None = 500  # of each set by which a score tunes itself (odin, mahalanobis)
    # ID training images behind the class means of the geometry measures; None: all, 0: no measures.
    geometry_images: int | None = 5000
    linear_probe: bool = False  # also fit a logistic regression on the training images' features, give its accuracy
    # Let a method that needs a network without batch norm (jem) train one that has it all the same.
    allow_batch_norm: bool = False
    sweep: str | None = None  # of a sweep (-m) its folder in outputs/sweeps; null: a name that follows from the words


# What `pretrain` shows of how the parent of a fine-tuning run (the cross-entropy network) may differ from this scale's
# own schedule; None: not at all. Any other field of a schedule may be added there.
PRETRAIN = ["epochs", "max_steps", "batch_size", "lr", "lr_end", "momentum", "nesterov", "weight_decay", "holdout"]


def defaults() -> dict[str, Any]:
    """Every option that has a default, as it stands before any file of conf/."""
    kinds = {"trainer": TrainerSettings, "logger": LoggerSettings, "paths": Paths}
    groups = {name: defaults_of(kind) for name, kind in kinds.items()}
    return {**defaults_of(Schedule), **defaults_of(Options), **groups, "pretrain": dict.fromkeys(PRETRAIN)}


@dataclass(frozen=True)
class Composition:
    """What Hydra composed settings from: the root file of conf/, all overrides, and the file of each group."""

    root: str
    overrides: tuple[str, ...]
    choices: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """Everything that one training or evaluation needs to know; `outliers` is None where the method trains on none."""

    method: Component
    method_score: str
    backbone: Component
    transform: Component
    id_data: IdData
    schedule: Schedule
    pretrain: dict[str, Any]
    ood_data: OodData
    scores: tuple[Component, ...]
    protocol: Protocol
    trainer: TrainerSettings
    logger: LoggerSettings
    paths: Paths
    run: str | None = None
    words: tuple[str, ...] | None = None  # what was typed to eval.py; None where nobody typed this evaluation
    composition: Composition | None = field(default=None, compare=False)

    @property
    def uses_outliers(self) -> bool:
        """Whether the method trains on an outlier stream."""
        return "outliers" in self.method.kind.streams
