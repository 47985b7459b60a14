"""What one command asks for: Hydra's composition, checked and coerced into plain dataclasses."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from farout.config.coerce import Component, build_dataclass, coerce, component, locate, signature_of, unknown
from farout.data import DataPaths, default_paths
from farout.data.catalogue import dataset_names, define, split_names
from farout.data.class_folders import name_with_classes, read_class_list
from farout.data.streams import HoldoutRule, OutlierOrder
from farout.engine.fit import Algorithm, Optimisation, RestartPolicy
from farout.engine.schedules import LRSchedule, Shape, WarmUp
from farout.errors import ConfigError, shorten
from farout.metrics.protocol import Protocol

ROOT = Path(__file__).resolve().parents[3]
Keep = Literal["last", "best"]  # which weights of a run
Precision = Literal["fp32", "bf16", "tf32"]  # of the network's trunk while it trains


@dataclass(frozen=True)
class Schedule:
    """Length, batches and optimiser of one training run; one file of conf/schedule.

    What has a default here stands in conf/train.yaml with the same value, for every method.
    """

    epochs: int
    batch_size: int
    lr: float
    lr_end: float
    momentum: float
    nesterov: bool
    weight_decay: float
    max_steps: int | None = None
    outlier_batch_size: int | None = None
    lr_schedule: Shape = "cosine"
    milestones: list[int] = field(default_factory=list)
    lr_factor: float = 0.1
    warm_up_epochs: int = 0
    warm_up_lr: float = 0.001
    negative_first_epoch: bool = False
    warm_up_steps: int = 0
    optimizer: Algorithm = "sgd"
    loss_bound: float | None = None
    max_restarts: int = 0
    restart_lr_factor: float = 1.0
    restart_every: int | None = None
    overfit_batches: int | None = None

    def record(self) -> dict[str, Any]:
        """What determines a network's weights.

        What came after the first runs is left out at its default, so that those runs are still found.
        """
        usual = self.later_defaults()
        return {key: value for key, value in asdict(self).items() if key not in usual or value != usual[key]}

    @staticmethod
    def later_defaults() -> dict[str, Any]:
        """What came after the first runs, at its default."""
        return {entry.name: getattr(_USUAL, entry.name) for entry in fields(Schedule)[_USUAL_FROM:]}

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

    def optimisation(self) -> Optimisation:
        """The optimiser's part."""
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


_USUAL = Schedule(1, 1, 1.0, 0.0, 0.0, False, 0.0)
_USUAL_FROM = [entry.name for entry in fields(Schedule)].index("lr_schedule")  # the first that came later


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
    """A named list of OOD test sets."""

    name: str
    sets: list[str]


@dataclass(frozen=True)
class TrainerSettings:
    """How to run, none of it part of a run's identity but the resolved precision."""

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "tf32"] = "auto"
    compile: Literal["auto", "graphs", True, False] = "auto"
    channels_last: bool = True
    checkpoint_minutes: float | None = 2.0
    checkpoint_steps: int | None = None
    budget_minutes: float | None = None
    eval_batch_size: int = 500
    cache_gib: float = 4.0
    log_every: int = 50
    detect_anomaly: bool = False
    profile: bool = False

    def check(self) -> None:
        """Raise ConfigError where a value means nothing."""
        for name in ("checkpoint_steps", "eval_batch_size", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"trainer.{name}={value} must be at least 1")
        for name in ("checkpoint_minutes", "budget_minutes", "cache_gib"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"trainer.{name}={value:g} must not be negative")


@dataclass(frozen=True)
class LoggerSettings:
    """Where curves and results go besides the run folder."""

    name: Literal["wandb", "none"]
    project: str | None = None
    mode: Literal["online", "offline", "shared", "disabled"] = "offline"


@dataclass(frozen=True)
class Paths:
    """Folders; None means the default that the documentation names."""

    outputs: str
    data: str | None = None
    packs: str | None = None

    def data_paths(self) -> DataPaths:
        """The image store, the packs and the catalogue."""
        default = default_paths(ROOT)
        return DataPaths(
            store=Path(self.data) if self.data else default.store,
            packs=Path(self.packs) if self.packs else default.packs,
            conf=default.conf,
        )


@dataclass(frozen=True)
class Settings:
    """Everything that one training or evaluation needs to know."""

    method: Component
    method_score: str
    backbone: Component
    transform: Component
    id_data: IdData
    outliers: str | None  # None also where the method trains on none
    outlier_order: OutlierOrder
    schedule: Schedule
    scale: str
    seed: int
    holdout: float
    holdout_rule: HoldoutRule
    keep: Keep
    init_from: str | None
    pretrain: dict[str, Any]
    ood_data: OodData
    scores: tuple[Component, ...]
    protocol: Protocol
    trainer: TrainerSettings
    logger: LoggerSettings
    paths: Paths
    evaluate: bool
    max_eval_images: int | None
    max_fit_images: int | None
    max_tune_images: int | None
    geometry_images: int | None
    linear_probe: bool
    allow_batch_norm: bool = False
    run: str | None = None
    words: tuple[str, ...] | None = None  # what was typed to eval.py; None where nobody typed this evaluation
    choices: Mapping[str, str] = field(default_factory=dict, compare=False)  # group of conf/ -> the file chosen there

    @property
    def uses_outliers(self) -> bool:
        """Whether the method trains on an outlier stream."""
        return "outliers" in locate(self.method.target).streams


GROUPS = ("method", "backbone", "transform", "id_data", "ood_data", "score", "protocol", "trainer", "logger")
SCALARS: dict[str, Any] = {
    "scale": str,
    "seed": int,
    "holdout": float,
    "holdout_rule": HoldoutRule,
    "keep": Keep,
    "init_from": str | None,
    "outliers": str | None,
    "outlier_order": OutlierOrder,
    "evaluate": bool,
    "max_eval_images": int | None,
    "max_fit_images": int | None,
    "max_tune_images": int | None,
    "geometry_images": int | None,
    "linear_probe": bool,
    "allow_batch_norm": bool,
}
EVALUATION_SCALARS: dict[str, Any] = {"run": str | None}  # eval.py's own


def _scalars(root: str) -> dict[str, Any]:
    return {**SCALARS, **(EVALUATION_SCALARS if root == "eval" else {})}


def known_root_keys(method_target: str, root: str = "train") -> list[str]:
    """Every root key that a composition with this method may have; `root` is train or eval."""
    schedule = [entry.name for entry in fields(Schedule)]
    return [*signature_of(method_target), *schedule, *_scalars(root), *GROUPS, "paths", "pretrain"]


def parse(
    config: DictConfig,
    root: str = "eval",
    words: Sequence[str] | None = None,
    choices: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """Check and coerce a composed configuration; with `root` train, eval.py's own options are unknown.

    `words` are the overrides that were typed for it, where an evaluation has to tell them from defaults; `choices` says
    which files of conf/ it was composed of.

    Raises:
        ConfigError: an option that this composition does not know (also one added with +), a blank, a value of the
            wrong kind, or one that the method refuses.
    """
    raw = _resolved(config)
    method_part = dict(raw["method"])
    method_score = coerce(method_part.pop("score", None), str, "method.score")
    target = coerce(method_part.get("_target_"), str, "method._target_")
    locate(target, "method")
    allowed = known_root_keys(target, root)
    strange = [key for key in raw if key not in allowed]
    if strange:
        raise unknown(strange, f"method={method_part.get('name')}", allowed)
    absent = [key for key in SCALARS if key not in raw]
    if absent:
        raise ConfigError(f"{absent[0]} is missing: set {absent[0]}=...")
    scalars = {key: coerce(raw[key], kind, key) for key, kind in _scalars(root).items() if key in raw}
    settings = Settings(
        method=_method(method_part, target, raw),
        method_score=method_score,
        backbone=component(raw["backbone"], "backbone", supplied=("num_classes",)),
        transform=component(raw["transform"], "transform"),
        id_data=_id_data(raw["id_data"]),
        schedule=_schedule(raw),
        pretrain=_pretrain(raw["pretrain"]),
        ood_data=build_dataclass(OodData, raw["ood_data"], "ood_data"),
        scores=_scores(raw["score"]),
        protocol=read_protocol(raw["protocol"]),
        trainer=build_dataclass(TrainerSettings, raw["trainer"], "trainer"),
        logger=build_dataclass(LoggerSettings, raw["logger"], "logger"),
        paths=build_dataclass(Paths, raw["paths"], "paths"),
        words=None if words is None else tuple(words),
        choices=dict(choices),
        **scalars,
    )
    _check(settings)
    return settings if settings.uses_outliers else replace(settings, outliers=None)


def _resolved(config: DictConfig) -> dict[str, Any]:
    """Plain values; every group must be there (`~backbone` takes one away) and hold a mapping."""
    try:
        raw: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        reason, _, place = str(error).partition("full_key: ")
        where = f"{place.split()[0]}: " if place.split() else ""
        raise ConfigError(f"{where}{reason.strip()} - give it a value") from None
    for group in (*GROUPS, "paths", "pretrain"):
        if not isinstance(raw.get(group), dict):
            raise ConfigError(f"{group} is missing or no group of values: choose a file with {group}=..., see --help")
    return raw


def _method(part: dict[str, Any], target: str, raw: dict[str, Any]) -> Component:
    """The method's knobs live at the root; whatever else stands in its group is unknown."""
    strange = [f"method.{key}" for key in part if key not in ("name", "_target_")]
    if strange:
        raise unknown(strange, "method", ["name", "score", *signature_of(target)])
    name = coerce(part.get("name"), str, "method.name")
    knobs = {key: coerce(raw.get(key), kind, key) for key, kind in signature_of(target).items()}
    return Component(name, target, knobs)


def _schedule(raw: dict[str, Any]) -> Schedule:
    names = [entry.name for entry in fields(Schedule)]
    schedule = build_dataclass(Schedule, {name: raw[name] for name in names if name in raw}, "")
    schedule.check()
    return schedule


def _pretrain(values: Any) -> dict[str, Any]:
    """The given parts of `pretrain`, coerced as the schedule's own fields (and holdout)."""
    kinds = {**get_type_hints(Schedule), "holdout": float}
    strange = [f"pretrain.{key}" for key in values if key not in kinds]
    if strange:
        raise unknown(strange, "pretrain", list(kinds))
    return {key: coerce(value, kinds[key], f"pretrain.{key}") for key, value in values.items() if value is not None}


def _id_data(values: Any) -> IdData:
    """Where folder and class list say what the set is, they must fit together."""
    given = build_dataclass(IdData, values, "id_data")
    if given.folder is None and given.class_list is None:
        return given
    if given.folder is None or given.class_list is None:
        raise ConfigError("id_data.folder and id_data.class_list belong together: give both, or neither")
    classes = read_class_list(given.class_list)
    if len(classes) != given.num_classes:
        raise ConfigError(f"{given.class_list} names {len(classes)} classes: set id_data.num_classes={len(classes)}")
    return replace(given, name=name_with_classes(given.name, classes))


def _scores(values: Any) -> tuple[Component, ...]:
    if not values:
        raise ConfigError("score is empty: name at least one, e.g. score=[msp,energy]")
    return tuple(component(value, f"score.{name}") for name, value in values.items())


def read_protocol(values: Any) -> Protocol:
    """A protocol from its YAML."""
    given = {key: value for key, value in values.items() if key != "_target_"}
    return build_dataclass(Protocol, given, "protocol")


def plain_protocol() -> Protocol:
    """conf/protocol/plain.yaml: all images, no redraws."""
    return read_protocol(OmegaConf.load(ROOT / "conf/protocol/plain.yaml"))


def _check(settings: Settings) -> None:
    """What only values together, a constructor, or the catalogue can refuse."""
    check_holdout(settings.holdout)
    if settings.holdout > 0 and settings.id_data.corruption_base is None:
        raise ConfigError(f"id_data={settings.id_data.name} has no validation corruptions: set holdout=0")
    _check_keep(settings)
    if not 0 <= settings.seed < 2**32:
        raise ConfigError(f"seed={settings.seed} must not be negative, nor reach 2^32")
    for name in ("max_eval_images", "max_fit_images", "max_tune_images"):
        limit = getattr(settings, name)
        if limit is not None and limit < 1:
            raise ConfigError(f"{name}={limit} must be at least 1")
    if settings.geometry_images is not None and settings.geometry_images < 0:
        raise ConfigError(f"geometry_images={settings.geometry_images} must not be negative: 0 measures no geometry")
    if settings.uses_outliers and settings.outliers is None:
        raise ConfigError(
            f"method={settings.method.name} trains on outliers: set outliers=NAME, e.g. outliers=cifar100"
        )
    if settings.uses_outliers:
        settings.schedule.outliers_per_update()
    if settings.uses_outliers and settings.outliers == settings.id_data.name:
        raise ConfigError(f"outliers={settings.outliers} is the in-distribution set itself: choose another")
    if locate(settings.method.target).embeds and not hasattr(locate(settings.backbone.target), "embed"):
        raise ConfigError(
            f"method={settings.method.name} needs a network with a projection head, and "
            f"backbone={settings.backbone.name} has none: choose backbone=resnet18_cider"
        )
    settings.trainer.check()
    _check_names(settings)
    _check_components(settings)


def check_holdout(holdout: float, prefix: str = "") -> None:
    if not 0 <= holdout < 1:
        raise ConfigError(f"{prefix}holdout={holdout:g} is a share of the training images: give one in [0, 1)")


def _check_keep(settings: Settings) -> None:
    """Weights are chosen by accuracy on images that did not train, so there must be both."""
    if settings.keep == "best" and settings.holdout <= 0:
        raise ConfigError("keep=best chooses by accuracy on held-out images: add holdout=0.1, or keep=last")
    if settings.keep == "best" and not locate(settings.method.target).trains_classifier:
        raise ConfigError(f"method={settings.method.name} trains no classifier to choose by: leave keep=last")


def _check_names(settings: Settings) -> None:
    """Names that end in a folder's name must be able to; data sets and the score of selection must exist."""
    for key in ("method", "backbone", "id_data"):
        name = getattr(settings, key).name
        if not re.fullmatch(r"[\w.@+-]+", name):
            raise ConfigError(f"{key}.name={name} names a folder: use letters, digits and _ . @ + -")
    if not (ROOT / f"conf/score/{settings.method_score}.yaml").is_file():
        raise ConfigError(f"method.score={settings.method_score} is not a score: choose one of conf/score/")
    paths = settings.paths.data_paths()
    for name in settings.ood_data.sets:
        define(name, "test", paths)
    if settings.outliers is not None:
        _check_outliers(settings.outliers, paths)


def _check_outliers(name: str, paths: DataPaths) -> None:
    """Outliers are the training images of a set of the catalogue."""

    def trains(each: str) -> bool:
        return "train" in (split_names(each, paths) or ["train"])

    known = dataset_names(paths)
    if (base := name.partition("@")[0]) not in known or not trains(base):
        raise ConfigError(f"outliers={shorten(name)} is not there: choose from {', '.join(filter(trains, known))}")
    define(name, "train", paths)


def _check_components(settings: Settings) -> None:
    """Build everything once (the network without memory): a bad argument must not be found after training."""
    built = {"method": settings.method, "transform": settings.transform, "backbone": settings.backbone}
    built |= {f"score.{score.name}": score for score in settings.scores}
    for key, part in built.items():
        more = {"num_classes": settings.id_data.num_classes} if key == "backbone" else {}
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a network without channels, which is refused right here
                part.build(**more)
        except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{key}={part.name} cannot be built ({reason}): check its values") from error
