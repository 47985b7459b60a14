"""From Hydra's composition to settings: everything known, of its kind, and able to be trained."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from farout.config.coerce import Component, build_dataclass, class_of, coerce, component, signature_of, unknown
from farout.config.settings import (
    Composition,
    IdData,
    LoggerSettings,
    OodData,
    Options,
    Paths,
    Schedule,
    Settings,
    TrainerSettings,
)
from farout.data.paths import DataPaths
from farout.errors import ConfigError, shorten
from farout.metrics.protocol import Protocol
from farout.places import conf_file, conf_names

GROUPS = ("method", "backbone", "transform", "id_data", "ood_data", "score", "protocol", "trainer", "logger")
SCALARS: dict[str, Any] = get_type_hints(Options)
EVALUATION_SCALARS: dict[str, Any] = {"run": str | None}  # eval.py's own


def _scalars(root: str) -> dict[str, Any]:
    return {**SCALARS, **(EVALUATION_SCALARS if root == "eval" else {})}


def known_root_keys(method_target: str, root: str = "train") -> list[str]:
    """Every root key that a composition with this method may have; `root` is train or eval."""
    schedule = [entry.name for entry in fields(Schedule)]
    return [*signature_of(method_target), *schedule, *_scalars(root), *GROUPS, "paths", "pretrain"]


def unknown_of_method(keys: Sequence[str], method: str, allowed: Sequence[str]) -> ConfigError:
    """The error for root keys that a method does not have; it names the methods that have the first."""
    files = {name: OmegaConf.load(conf_file(f"method/{name}")) for name in conf_names("method")}
    having = [f"method={name}" for name, file in files.items() if keys[0] in file]
    error = unknown(keys, f"method={method}", allowed)
    told = f"{keys[0]} (of {' and '.join(having)}):"
    return ConfigError(str(error).replace(f"{keys[0]}:", told, 1)) if having else error


def parse(
    config: DictConfig,
    root: str = "eval",
    words: Sequence[str] | None = None,
    composition: Composition | None = None,
) -> Settings:
    """Check and coerce a composed configuration; with `root` train, eval.py's own options are unknown.

    `words` are the overrides that were typed for it, where an evaluation has to tell them from defaults;
    `composition` says what it was composed of.

    Raises:
        ConfigError: an option that this composition does not know (also one added with +), a blank, a value of the
            wrong kind, or one that the method refuses.
    """
    raw = _resolved(config)
    method_part = dict(raw["method"])
    method_score = coerce(method_part.pop("score", None), str, "method.score")
    target = coerce(method_part.get("_target_"), str, "method._target_")
    class_of(target, "method")
    allowed = known_root_keys(target, root)
    strange = [key for key in raw if key not in allowed]
    if strange:
        raise unknown_of_method(strange, str(method_part.get("name")), allowed)
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
        composition=composition,
        **scalars,
    )
    _check(settings)
    return settings if settings.uses_outliers else replace(settings, outliers=None, max_outlier_images=None)


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
    from farout.data.class_folders import name_with_classes, read_class_list

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


def protocol_file(name: str) -> Protocol:
    """A file of conf/protocol, by its name; raises ConfigError where there is none."""
    path = conf_file(f"protocol/{name}")
    if not path.is_file():
        raise ConfigError(f"protocol={name} is not there: choose from {', '.join(conf_names('protocol'))}")
    return read_protocol(OmegaConf.load(path))


def plain_protocol() -> Protocol:
    """conf/protocol/plain.yaml: all images, no redraws."""
    return protocol_file("plain")


def _check(settings: Settings) -> None:
    """What only values together, a constructor, or the catalogue can refuse."""
    check_holdout(settings.holdout)
    if settings.holdout > 0 and settings.id_data.corruption_base is None:
        raise ConfigError(f"id_data={settings.id_data.name} has no validation corruptions: set holdout=0")
    _check_keep(settings)
    _check_validations(settings.validations, settings.holdout)
    if not 0 <= settings.seed < 2**32:
        raise ConfigError(f"seed={settings.seed} must not be negative, nor reach 2^32")
    for name in ("max_eval_images", "max_fit_images", "max_tune_images", "max_outlier_images"):
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
    if settings.method.kind.embeds and not hasattr(settings.backbone.kind, "embed"):
        raise ConfigError(
            f"method={settings.method.name} needs a network with a projection head, and "
            f"backbone={settings.backbone.name} has none: choose backbone=resnet18_cider"
        )
    settings.trainer.check()
    settings.logger.check()
    _check_names(settings)
    _check_components(settings)


def check_holdout(holdout: float, prefix: str = "") -> None:
    if not 0 <= holdout < 1:
        raise ConfigError(f"{prefix}holdout={holdout:g} is a share of the training images: give one in [0, 1)")


def _check_validations(validations: int, holdout: float) -> None:
    """Raise ConfigError where nothing could be looked at."""
    if validations < 0:
        raise ConfigError(f"validations={validations} must not be negative: 0 looks at the holdout at the end alone")
    if validations and holdout <= 0:
        raise ConfigError(f"validations={validations} looks at held-out images: add holdout=0.1, or validations=0")


def _check_keep(settings: Settings) -> None:
    """Weights are chosen by accuracy on images that did not train, so there must be both."""
    if settings.keep == "best" and settings.holdout <= 0:
        raise ConfigError("keep=best chooses by accuracy on held-out images: add holdout=0.1, or keep=last")
    if settings.keep == "best" and not settings.method.kind.trains_classifier:
        raise ConfigError(f"method={settings.method.name} trains no classifier to choose by: leave keep=last")


def _check_names(settings: Settings) -> None:
    """Names that end in a folder's name must be able to; data sets and the score of selection must exist."""
    from farout.data.catalogue import define

    for key in ("method", "backbone", "id_data"):
        name = getattr(settings, key).name
        if not re.fullmatch(r"[\w.@+-]+", name):
            raise ConfigError(f"{key}.name={name} names a folder: use letters, digits and _ . @ + -")
    if not conf_file(f"score/{settings.method_score}").is_file():
        raise ConfigError(f"method.score={settings.method_score} is not a score: choose one of conf/score/")
    paths = settings.paths.data_paths()
    for name in settings.ood_data.sets:
        define(name, "test", paths)
    if settings.outliers is not None:
        _check_outliers(settings.outliers, paths)


def _check_outliers(name: str, paths: DataPaths) -> None:
    """Outliers are the training images of a set of the catalogue."""
    from farout.data.catalogue import dataset_names, define, split_names

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
            _build_without_memory(part.target, repr({**part.arguments, **more}), partial(part.build, **more))
        except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{key}={part.name} cannot be built ({reason}): check its values") from error


_CAN_BE_BUILT: set[tuple[str, str]] = set()


def _build_without_memory(target: str, arguments: str, build: Callable[[], Any]) -> None:
    """Raises what `build` does; a sweep need not build the same network for every job to know that it can be."""
    if (target, arguments) in _CAN_BE_BUILT:
        return
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a network without channels, which is refused right here
        build()
    _CAN_BE_BUILT.add((target, arguments))
