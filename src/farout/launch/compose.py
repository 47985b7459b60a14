"""Settings from overrides, and what is wrong with overrides, in one line."""

import re
from collections.abc import Sequence

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from farout.errors import ConfigError
from farout.launch.coerce import unknown
from farout.launch.recorded import words_before
from farout.launch.settings import ROOT, Settings, known_root_keys, parse


def compose_settings(overrides: Sequence[str], config_name: str = "train") -> Settings:
    """The settings of `python train.py OVERRIDES...`, without a command line; raises ConfigError in one line.

    Of `eval` with `run=PATH` the record of that run comes first.
    """
    typed = list(overrides) if config_name == "eval" else None
    return compose_after([] if typed is None else words_before(typed), overrides, config_name, typed)


def compose_after(
    before: Sequence[str], overrides: Sequence[str], config_name: str, typed: Sequence[str] | None
) -> Settings:
    """The settings of the overrides `before` and those after them, of which `typed` are somebody's own."""
    words = [*before, *overrides]
    outer = GlobalHydra.instance().hydra  # of a command that is under way
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return parse(hydra.compose(config_name, words), config_name, typed)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, config_name, words) from None
    finally:
        GlobalHydra.instance().hydra = outer


def explain(error: Exception, config_name: str, words: Sequence[str]) -> ConfigError:
    """Hydra's message about the overrides `words` as one line that names what is allowed."""
    text = str(error)
    key = re.search(r"[Kk]ey '([^']+)' is not in struct", text) or re.search(r"Could not override '([^']+)'", text)
    if key:
        full = re.search(r"full_key: (\S+)", text)
        return _unknown_key(full.group(1) if full else key.group(1), config_name, words)
    choice = re.search(r"Could not (?:find|load) '([^'/]+)/([^']*)'", text)
    if choice and choice.group(1) != "hydra":
        group, value = choice.groups()
        return ConfigError(f"{group}={value} is not there: choose from {', '.join(_options(group))}")
    return ConfigError(" ".join(text.split()) or type(error).__name__)


def _options(group: str) -> list[str]:
    """What a group offers: its files, by the names that choose them."""
    folder = ROOT / "conf" / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def _group_choices(words: Sequence[str]) -> list[str]:
    """The words of a command line that choose a file of a group; of a sweep the first."""
    matches = [re.match(r"([\w/]+)(@\w+)?=[\w/]+", word) for word in words]
    return [match.group(0) for match in matches if match and (ROOT / "conf" / match.group(1)).is_dir()]


def _unknown_key(key: str, config_name: str, words: Sequence[str]) -> ConfigError:
    """Which keys the composition has where `key` was looked for; composed again with the group choices alone."""
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = hydra.compose(config_name, _group_choices(words))
    except (HydraException, OmegaConfBaseException):
        return ConfigError(f"unknown option {key}: see --help")
    section, _, _ = key.rpartition(".")
    if not section and OmegaConf.select(config, "method.name") and OmegaConf.select(config, "method._target_"):
        return unknown([key], f"method={config.method.name}", known_root_keys(config.method._target_, config_name))
    found = config
    for part in section.split("."):
        found = found.get(part) if isinstance(found, DictConfig) else None
    allowed = [str(name) for name in found] if isinstance(found, DictConfig) else []
    return unknown([key], section, allowed)
