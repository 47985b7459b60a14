"""The outer entry of train.py and eval.py: Hydra inside, one-line errors and exit statuses outside."""

import argparse
import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.version import setbase
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from farout.commands.arguments import DONE, FAILED, plain, reported
from farout.config.compose import compose_after, explain, hydra_folder, require_jobs, settings_of
from farout.config.settings import Composition, Settings
from farout.engine import stopping
from farout.engine.progress import say
from farout.errors import ConfigError, FaroutError
from farout.places import CONF
from farout.version import __version__

Task = Callable[[Settings], Any]


def main(config_name: str, task: Task) -> NoReturn:
    """Compose, check and run; exits 0, or 2 after one line that says what is wrong and what to do."""

    def act(arguments: Sequence[str] | None = None) -> int:
        return command(config_name, task, arguments or ())

    sys.exit(reported(act, sys.argv[1:]))


def command(config_name: str, task: Task, words: Sequence[str]) -> int:
    """What `main` does with `words`; in a sweep every job is tried, a failing one is reported, and the status tells."""
    parser, options = read(words)
    if options.info is None:  # Hydra prints that with a logger of its own
        logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stdout)
        logging.getLogger("farout").setLevel(logging.INFO)
    # Hydra would print its own report and exit with 1: ask for the exception instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    typed = list(options.overrides)
    sweep = sweep_name(typed) if is_sweep(options) else None
    errors: list[Exception] = []
    started = False

    def job(config: DictConfig) -> Any:
        nonlocal started
        started = True
        try:
            typed = typed_overrides(before) if config_name == "eval" else None
            return task(settings_of(config, config_name, typed, composition_of_job(sweep)))
        except (FaroutError, OSError) as error:
            errors.append(error)
            here = HydraConfig.get()
            if here.mode == RunMode.MULTIRUN:
                say(f"job {here.job.num} failed: {plain(error)}")
                if not all("._internal." in part._target_ for part in (here.sweeper, here.launcher)):
                    raise  # a sweeper that searches must know, and another process has an `errors` of its own
            return None

    before: list[str] = []
    try:
        if config_name == "eval":  # run=PATH: what the run's record says comes before what was typed
            from farout.runs.overrides import overrides_before

            before += overrides_before(typed)
        checked = refuse(options, config_name, before)
        sweeps_into = hydra_folder(typed, config_name) if is_sweep(options) else None
        options.overrides = [*before, *typed]
        with stopping.signals(), tidied(sweeps_into), copied_once() if options.help else nullcontext():
            if checked is None:
                _run_hydra(options, parser, job, str(CONF), config_name)
            else:  # composed already, and nothing is left that Hydra would do
                started = True
                task(checked)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # of rich, where nobody reads any more
            raise
        return DONE if not leaving.code else FAILED
    except (KeyboardInterrupt, stopping.Terminated) as stop:
        return stopping.report_stop(stop)
    except Exception as error:
        if isinstance(error, FaroutError | OSError) and not isinstance(error, HydraException):  # some are both
            raise
        # Before a job starts, whatever Hydra raises (also plain ValueError) is about the command line.
        if started and not isinstance(error, HydraException | OmegaConfBaseException):
            raise
        raise explain(error, config_name, [*before, *typed]) from None
    if errors:
        raise errors[0]
    return DONE


def sweep_name(words: Sequence[str]) -> str:
    """A sweep's name: the same words, in whatever order, are the same sweep."""
    own = sorted(word for word in words if not is_hydras(word))
    return f"sweep-{hashlib.sha256(chr(10).join(own).encode()).hexdigest()[:8]}"


def composition_of_job(sweep: str | None) -> Composition:
    """What the job that runs was composed from."""
    here = HydraConfig.get()
    return Composition(str(here.job.config_name), tuple(here.overrides.task), dict(here.runtime.choices), sweep)


@contextmanager
def copied_once() -> Iterator[None]:
    """Hydra's help copies all it knows for every group that it lists, more than two hundred times: once will do."""
    copied = ConfigLoaderImpl._parse_overrides_and_create_caching_repo
    kept: dict[tuple[str | None, tuple[str, ...]], Any] = {}

    def once(self: ConfigLoaderImpl, config_name: str | None, overrides: list[str]) -> Any:
        key = config_name, tuple(overrides)
        if key not in kept:
            kept[key] = copied(self, config_name, overrides)
        return kept[key]

    ConfigLoaderImpl._parse_overrides_and_create_caching_repo = once  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl._parse_overrides_and_create_caching_repo = copied  # type: ignore[method-assign]


def typed_overrides(before: Sequence[str]) -> list[str]:
    """The overrides of the job that runs, without those that come from a record."""
    return [word for word in HydraConfig.get().overrides.task if word not in before]


def read(words: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Hydra's options, and overrides anywhere between them; its parser too, which its help describes."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}: see --help for overrides, --hydra-help for options")

    parser.error = refuse  # type: ignore[method-assign]
    for action in parser._actions:
        if action.dest == "version":
            action.version = f"farout {__version__}, Hydra {action.version.split()[-1]}"  # type: ignore[attr-defined]
    return parser, parser.parse_intermixed_args(list(words))


def is_hydras(word: str) -> bool:
    """Whether an override is about how Hydra runs a job, not about the job."""
    return word.lstrip("+~").startswith("hydra")


def is_sweep(options: argparse.Namespace) -> bool:
    """Whether several jobs are asked for."""
    return bool(options.multirun or "hydra.mode=MULTIRUN" in options.overrides)


def refuse(options: argparse.Namespace, config_name: str, before: Sequence[str]) -> Settings | None:
    """Raise ConfigError for what is wrong already, before Hydra makes a folder; the settings of a job without Hydra."""
    setbase("1.3")
    if options.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun would execute what a pickle holds: give the overrides again")
    if options.help or options.hydra_help or options.cfg or options.info or options.shell_completion:
        return None
    if is_sweep(options):
        require_jobs(options.overrides)
        return None
    elsewhere = options.config_dir or options.config_path or options.config_name
    if elsewhere or any("${hydra:" in word for word in options.overrides):  # which only a job can look up
        return None
    typed = options.overrides if config_name == "eval" else None
    settings = compose_after(before, options.overrides, config_name, typed)
    return None if any(is_hydras(word) for word in options.overrides) else settings


@contextmanager
def tidied(folder: Path | None) -> Iterator[None]:
    """Leave nothing of Hydra's in the folder that a sweep gives it: nobody reads that, and an empty one is litter."""
    if folder is None:
        yield
        return
    record = folder / "multirun.yaml"
    mine = not record.exists()
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        with suppress(OSError):
            if mine:
                record.unlink(missing_ok=True)
            for path in absent:
                path.rmdir()  # fails where something lies in it, and then no folder above is empty either
