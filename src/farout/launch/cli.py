"""The outer entry of train.py and eval.py: Hydra inside, one-line errors and exit statuses outside."""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from farout.engine.progress import say
from farout.errors import FaroutError
from farout.launch.compose import explain
from farout.launch.recorded import words_before
from farout.launch.settings import ROOT, Settings, parse

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
    before: list[str] = []
    started = False

    def job(config: DictConfig) -> Any:
        nonlocal started
        started = True
        try:
            typed = [word for word in HydraConfig.get().overrides.task if word not in before]
            return task(parse(config, config_name, typed if config_name == "eval" else None))
        except FaroutError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                say(f"job {HydraConfig.get().job.num} failed: {error}")
                raise
            failures.append(error)
            return None

    try:
        if config_name == "eval":  # run=PATH: what the run's record says comes before what was typed
            before += words_before(sys.argv[1:])
            first = next((i for i, word in enumerate(sys.argv) if i and "=" in word and word[0] != "-"), 1)
            sys.argv[first:first] = before
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
        failures.append(explain(error, config_name, sys.argv[1:]))
    if failures:
        print(f"error: {failures[0]}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
