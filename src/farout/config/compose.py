"""Settings from overrides, and what is wrong with overrides, in one line."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from farout.command_names import as_typed
from farout.config.coerce import unknown
from farout.config.parse import check_holdout, known_root_keys, parse, unknown_of_method
from farout.config.renamed import renamed
from farout.config.settings import Composition, Settings, defaults
from farout.errors import ConfigError, one_line, shorten
from farout.places import CONF, conf_folders, conf_names, is_group, own_conf

# What conf/train.yaml begins with.
ConfigStore.instance().store("settings", OmegaConf.create(defaults()), provider="farout")
# The examples of --help, in the words by which the command was called.
OmegaConf.register_new_resolver("as_typed", as_typed, replace=True)
# A variable of the environment, blank ones as if they were not set: for conf/logger.
OmegaConf.register_new_resolver("variable", lambda name, usual: os.environ.get(name) or usual, replace=True)


class OwnConf(SearchPathPlugin):
    """Hydra looks into conf/ of the current folder before that of farout: a file there adds to a group or replaces."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Nothing where another folder than farout's is the main one (--config-path), or where there is no own."""
        own = own_conf()
        if own is not None and any(each.path == str(CONF) for each in search_path.get_path()):
            search_path.prepend("farout-here", f"file://{own}", SearchPathQuery("main", str(CONF)))


Plugins.instance().register(OwnConf)

LISTS = ("score", "experiment", "logger")  # groups of which several files can be chosen


def compose_settings(overrides: Sequence[str]) -> Settings:
    """The settings of `python train.py OVERRIDES...`, without a command line; raises ConfigError in one line."""
    return compose_after([], overrides, "train", None)


def compose_after(
    before: Sequence[str], overrides: Sequence[str], config_name: str, typed: Sequence[str] | None
) -> Settings:
    """The settings of the overrides `before` and those after them, of which `typed` are somebody's own."""
    words = [*before, *overrides]
    check_overrides(words)
    with hydra_on_conf():
        try:
            config, options = _composed(config_name, words)
        except Exception as error:  # of Hydra, OmegaConf and the parsers below them, many kinds
            raise explain(error, config_name, words) from None
    return settings_of(config, config_name, typed, Composition(config_name, tuple(words), options))


def _composed(root: str, words: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """What `hydra.compose` makes of the words, and each group's option; what files say alone is composed once."""
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    overrides = OverridesParser.create(loader).parse_overrides(list(words))
    loader.validate_sweep_overrides_legal(overrides, RunMode.RUN, from_shell=False)
    values = [override for override in overrides if _is_value(override, loader)]
    config, options = files_alone(root, [str(each.input_line) for each in overrides if each not in values])
    config = deepcopy(config)
    loader._apply_overrides_to_config(values, config)
    return config, dict(options)


def _is_value(override: Override, loader: ConfigLoaderImpl) -> bool:
    """Whether Hydra sets it in what the files compose to; otherwise it chooses files, or is Hydra's own business."""
    key = override.key_or_group
    own = key.partition(".")[0] == "hydra" or key.startswith("hydra/")
    return not own and (isinstance(override.value(), dict) or not loader.repository.group_exists(key))


def files_alone(root: str, choices: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """What a root composes to with nothing but `choices` of files, and each group's option; not to be changed.

    Hydra must be there; its folders are read once for the same choices.
    """
    places = [(source.provider, source.path) for source in GlobalHydra.instance().config_loader().get_sources()]
    return _files_alone(root, tuple(choices), tuple(places))


@lru_cache(maxsize=256)
def _files_alone(
    root: str, choices: tuple[str, ...], places: tuple[tuple[str, str], ...]
) -> tuple[DictConfig, dict[str, Any]]:
    config = hydra.compose(root, list(choices), return_hydra_config=True)
    options = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return config, options


def settings_of(
    config: DictConfig, config_name: str, typed: Sequence[str] | None, composition: Composition
) -> Settings:
    """What a composition says, checked with its parent; as `parse`."""
    settings = parse(config, config_name, typed, composition)
    if settings.init_from == "auto":
        parent_settings(settings)
    return settings


def parent_settings(settings: Settings) -> Settings:
    """The cross-entropy run that a fine-tuning run starts from.

    Method and schedule are those of `method=ce` at the child's scale and on its data set, changed by `pretrain.*`;
    network, images and seed are the child's, and nothing else of its training: so every child of one seed shares one
    parent. Of the network all parts train, whatever `backbone.trainable` says of the child.
    """
    choices = {} if settings.composition is None else settings.composition.choices
    usual = _from_scratch(settings.scale, choices.get("id_data"), conf_folders())
    pretrain = dict(settings.pretrain)
    holdout = pretrain.pop("holdout", usual.holdout)
    check_holdout(holdout, "pretrain.")
    schedule = replace(usual.schedule, **pretrain)
    try:
        schedule.check()
    except ConfigError as error:
        raise ConfigError(f"pretrain.{error}") from None
    return replace(
        settings,
        method=usual.method,
        method_score=usual.method_score,
        backbone=settings.backbone.without_common(),
        outliers=None,
        max_outlier_images=None,
        schedule=schedule,
        holdout=holdout,
        keep=usual.keep,
        init_from=None,
        pretrain={},
        trainer=replace(settings.trainer, precision=usual.trainer.precision),
    )


@cache
def _from_scratch(scale: str, id_data: str | None, folders: tuple[Path, ...]) -> Settings:
    """Cross-entropy at a scale, on the data set of a file where it is one of conf/id_data in these folders."""
    words = ["method=ce", f"scale={scale}"]
    return compose_settings(words + ([f"id_data={id_data}"] if id_data in conf_names("id_data") else []))


@contextmanager
def hydra_on_conf() -> Iterator[None]:
    """Hydra on conf/; that of a command that is under way comes back afterwards."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def check_overrides(words: Sequence[str]) -> list[Override]:
    """The overrides, parsed; raises ConfigError for a word that is none, or that chooses what is no file of a group."""
    parser = OverridesParser.create(
        GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    )
    found = [_parsed(word, parser) for word in words]
    for override in found:
        group = override.key_or_group
        chosen = not override.is_delete() and not override.is_sweep_override()
        if chosen and group != "hydra" and is_group(group):
            _check_choice(group, override.value())
    return found


def _parsed(word: str, parser: OverridesParser) -> Override:
    try:
        (override,) = parser.parse_overrides([word])
    except Exception as error:  # the lexer, the parser and the functions in values raise many kinds
        reason = re.sub(r"^Error parsing override .*?\n|See https://.*", "", str(error), flags=re.DOTALL).strip()
        reason = "a character that must stand in quotes" if "LexerNoViableAlt" in reason else one_line(reason)
        raise ConfigError(
            f"{shorten(word) or 'an empty word'} cannot be read ({shorten(reason, 200)}): write NAME=VALUE, "
            "and a value with special characters in quotes: \"NAME='VALUE'\""
        ) from None
    if not override.key_or_group:
        raise ConfigError(f"{shorten(word)} has no name: write NAME=VALUE")
    return override


def _check_choice(group: str, value: Any) -> None:
    """One file of a group, or several where they can go together."""
    names = value if isinstance(value, list) and group in LISTS else [value]
    for name in names:
        if not isinstance(name, str) or ".." in name.split("/") or renamed(group, name):
            raise no_file(group, "null" if name is None else name)


def no_file(group: str, name: object) -> ConfigError:
    """The error for a choice that a group does not have, or has under another name."""
    now = renamed(group, name)
    if now is not None:
        return ConfigError(f"{group}={name} is now {now}: use that")
    names, folder = conf_names(group), str(name).partition("/")[0] + "/"
    listed = [each for each in names if each.startswith(folder)] or names
    others = "; all are in --help" if len(listed) < len(names) else ""
    return ConfigError(f"{group}={shorten(name)} is not there: choose from {', '.join(listed)}{others}")


def require_jobs(words: Sequence[str]) -> None:
    """Raise ConfigError where a sweep over `words` has no job, or cannot be read."""
    with hydra_on_conf():
        for override in check_overrides(words):
            if not override.is_sweep_override() or not override.is_discrete_sweep():
                continue
            try:
                empty = next(override.sweep_string_iterator(), None) is None
            except Exception as error:
                raise ConfigError(f"{override.input_line} cannot be swept over: {one_line(str(error))}") from None
            if empty:
                raise ConfigError(f"{override.input_line} names nothing, so the sweep has no job: give it values")


def sweep_config(words: Sequence[str], config_name: str) -> DictConfig | None:
    """What a sweep with these words composes to before its jobs do, `hydra` in it; of what is swept over, the usual.

    None where that fails: whoever composes in earnest says so.
    """
    try:
        with hydra_on_conf():
            fixed = [str(each.input_line) for each in check_overrides(words) if not each.is_sweep_override()]
            return hydra.compose(config_name, fixed, return_hydra_config=True)
    except Exception:  # of many kinds
        return None


def explain(error: Exception, config_name: str, words: Sequence[str]) -> ConfigError:
    """Hydra's message about the overrides `words` as one line that names what is allowed."""
    if isinstance(error, ConfigError):
        return error
    text = str(error)
    key = re.search(r"[Kk]ey '([^']+)' is not in struct", text) or re.search(r"Could not override '([^']+)'", text)
    if key:
        full = re.search(r"full_key: (\S+)", text)
        return _unknown_key(full.group(1) if full else key.group(1), config_name, words)
    choice = re.search(r"Could not (?:find|load) '([^'/]+)/([^']*)'", text)
    if choice and choice.group(1) != "hydra":
        return no_file(*choice.groups())
    if re.search(r"Error resolving interpolation '(\$\{id_data\}/)?\$\{scale\}/\$\{method\}'", text):
        return ConfigError("scale and method choose the schedule: give each the name of one file, see --help")
    return ConfigError(one_line(re.sub(r"See https://\S+( for details)?", "", text)) or type(error).__name__)


def _group_choices(words: Sequence[str]) -> list[str]:
    """The words of a command line that choose a file of a group; of a sweep the first."""
    matches = [re.match(r"([\w/]+)(@\w+)?=[\w/]+", word) for word in words]
    return [match.group(0) for match in matches if match and is_group(match.group(1))]


def _unknown_key(key: str, config_name: str, words: Sequence[str]) -> ConfigError:
    """Which keys the composition has where `key` was looked for; composed again with the group choices alone."""
    try:
        with hydra_on_conf():
            config = hydra.compose(config_name, _group_choices(words))
    except Exception:  # the choices are wrong too
        return ConfigError(f"unknown option {key}: see --help")
    section, _, _ = key.rpartition(".")
    if not section and OmegaConf.select(config, "method.name") and OmegaConf.select(config, "method._target_"):
        allowed = known_root_keys(config.method._target_, config_name)
        if key in allowed:
            return ConfigError(f"{key} does not take the names that it is given: set {key}.NAME=VALUE, see --help")
        return unknown_of_method([key], config.method.name, allowed)
    found = config
    for part in section.split("."):
        found = found.get(part) if isinstance(found, DictConfig) else None
    allowed = [str(name) for name in found] if isinstance(found, DictConfig) else []
    return unknown([key], section, allowed)
