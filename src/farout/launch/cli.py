"""The outer entry of train.py and eval.py: Hydra inside, one-line errors and exit statuses outside."""

import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from farout.engine.progress import say
from farout.errors import ConfigError, FaroutError
from farout.launch.coerce import unknown
from farout.launch.settings import ROOT, Settings, known_root_keys, parse

Task = Callable[[Settings], Any]


def main(config_name: str, task: Task) -> NoReturn:
    """Compose, check and run; exits 0, or 2 after one line that says what is wrong and what to do.

    In a sweep every job is tried: a failing one is reported and the rest go on; the status tells at the end.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stdout)
    logging.getLogger("farout").setLevel(logging.INFO)
    # Hydra would print its own report and exit with 1: ask for the exception instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # argparse takes no options between overrides: `method=energy -m seed=1,2` means `-m method=energy seed=1,2`.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    failures: list[FaroutError] = []
    started = False

    def job(config: DictConfig) -> Any:
        nonlocal started
        started = True
        try:
            return task(parse(config, config_name))
        except FaroutError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                say(f"job {HydraConfig.get().job.num} failed: {error}")
                raise
            failures.append(error)
            return None

    try:
        hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name=config_name)(job)()
    except FaroutError as error:
        failures.append(error)
    except KeyboardInterrupt:
        print("interrupted: repeat the command to go on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # Before a job starts, whatever Hydra raises (also plain ValueError) is about the command line.
        if started and not isinstance(error, HydraException | OmegaConfBaseException):
            raise
        failures.append(explain(error, config_name))
    if failures:
        print(f"error: {failures[0]}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


def explain(error: Exception, config_name: str) -> FaroutError:
    """Hydra's message as one line that names what is allowed."""
    text = str(error)
    key = re.search(r"[Kk]ey '([^']+)' is not in struct", text) or re.search(r"Could not override '([^']+)'", text)
    if key:
        full = re.search(r"full_key: (\S+)", text)
        return _unknown_key(full.group(1) if full else key.group(1), config_name)
    choice = re.search(r"Could not (?:find|load) '([^'/]+)/([^']*)'", text)
    if choice and choice.group(1) != "hydra":
        group, value = choice.groups()
        return ConfigError(f"{group}={value} is not there: choose from {', '.join(_options(group))}")
    return ConfigError(" ".join(text.split()) or type(error).__name__)


def _options(group: str) -> list[str]:
    """What a group offers: its files, by the names that choose them."""
    folder = ROOT / "conf" / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def _group_choices(words: list[str]) -> list[str]:
    """The words of a command line that choose a file of a group; of a sweep the first."""
    matches = [re.match(r"([\w/]+)(@\w+)?=[\w/]+", word) for word in words]
    return [match.group(0) for match in matches if match and (ROOT / "conf" / match.group(1)).is_dir()]


def _unknown_key(key: str, config_name: str) -> ConfigError:
    """Which keys the composition has where `key` was looked for; composed again with the group choices alone."""
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = hydra.compose(config_name, _group_choices(sys.argv[1:]))
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
