"""The outer entry of train.py and eval.py: Hydra inside, one-line errors and exit statuses outside."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.version import setbase
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from farout.commands import hydra_plugins  # noqa: F401
from farout.commands.arguments import DONE, FAILED, hear, plain, reported
from farout.commands.optuna_study import reporter
from farout.commands.sweeping import Sweep, state_after
from farout.config.compose import compose_after, explain, require_jobs, settings_of
from farout.config.settings import Composition, Settings
from farout.engine import stopping
from farout.engine.progress import say
from farout.errors import ConfigError, FaroutError, Pruned
from farout.places import CONF
from farout.version import __version__

Task = Callable[..., Any]  # of settings; training also takes `report`


def main(config_name: str, task: Task) -> NoReturn:
    """Compose, check and run; exits 0, or 2 after one line that says what is wrong and what to do."""

    def act(arguments: Sequence[str] | None = None) -> int:
        return command(config_name, task, arguments or ())

    sys.exit(reported(act, sys.argv[1:]))


def command(config_name: str, task: Task, words: Sequence[str]) -> int:
    """What `main` does with `words`; in a sweep every job is tried, a failing one is reported, and the status tells."""
    parser, options = read(words)
    if options.info is None:  # Hydra prints that with a logger of its own
        hear()
    # Hydra would print its own report and exit with 1: ask for the exception instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    typed, before = list(options.overrides), list[str]()
    jobs = Jobs(config_name, task, before)
    try:
        if config_name == "eval":  # run=PATH: what the run's record says comes before what was typed
            from farout.runs.overrides import overrides_before

            before += overrides_before(typed)
        checked = refuse(options, config_name, before)
        if is_sweep(options):
            jobs.sweep = Sweep.of(config_name, typed, before)
        options.overrides = [*before, *typed] if jobs.sweep is None else jobs.sweep.words
        with stopping.signals(), _kept(jobs.sweep), copied_once() if options.help else nullcontext():
            if checked is None:
                _run_hydra(options, parser, jobs.function(), str(CONF), config_name)
            else:  # composed already, and nothing is left that Hydra would do
                jobs.started = True
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
        if jobs.started and not isinstance(error, HydraException | OmegaConfBaseException):
            raise
        raise explain(error, config_name, [*before, *typed]) from None
    if jobs.errors:
        raise jobs.errors[0]
    return DONE


@contextmanager
def _kept(sweep: Sweep | None) -> Iterator[None]:
    """Of a sweep its table stays, and nothing that only Hydra would have use for."""
    if sweep is None:
        yield
        return
    with tidied(sweep.folder.path), sweep.tabulated():
        yield


@dataclass
class Jobs:
    """What Hydra calls for each job of a command, in this process or in another one.

    Attributes:
        errors: what the jobs of this process failed with.
        started: whether any began.
        sweep: that they are of; None for a single one.
    """

    config_name: str
    task: Task
    before: list[str]
    errors: list[Exception] = field(default_factory=list)
    started: bool = False
    sweep: Sweep | None = None

    def function(self) -> Callable[[DictConfig], Any]:
        """As Hydra wants it."""

        def job(config: DictConfig) -> Any:
            return self.carry_out(config)

        return job

    def carry_out(self, config: DictConfig) -> Any:
        """One job; in a sweep every one is tried, and a failing one is reported."""
        self.started = True
        try:
            return self._of_sweep(config) if self.sweep is not None else self.task(self._settings(config))
        except (FaroutError, OSError) as error:
            here = HydraConfig.get()
            if not isinstance(error, Pruned):
                self.errors.append(error)
            if self.sweep is not None:
                number = self.sweep.job_of(here.overrides.task, here.job.num).number
                say(f"job {number} {state_after(error)[0]}: {plain(error)}")
                if not all("._internal." in part._target_ for part in (here.sweeper, here.launcher)):
                    raise  # a sweeper that searches must know, and another process has an `errors` of its own
            return None

    def _settings(self, config: DictConfig) -> Settings:
        typed = typed_overrides(self.before) if self.config_name == "eval" else None
        return settings_of(config, self.config_name, typed, composition_of_job())

    def _of_sweep(self, config: DictConfig) -> Any:
        assert self.sweep is not None
        here = HydraConfig.get()
        with self.sweep.job(here.overrides.task, here.job.num) as watched:
            settings = self._settings(config)
            if not watched.begins(settings):
                return None
            report = reporter(self.sweep.folder.path, here)
            return self.task(settings) if report is None else self.task(settings, report=report)


def composition_of_job() -> Composition:
    """What the job that runs was composed from."""
    here = HydraConfig.get()
    words = tuple(word for word in here.overrides.task if not word.startswith("sweep="))
    return Composition(str(here.job.config_name), words, dict(here.runtime.choices))


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
    for word in options.overrides:
        if word.startswith(("hydra/launcher=", "hydra/sweeper=")):
            raise ConfigError(f"{word} is about sweeps: add -m")
    elsewhere = options.config_dir or options.config_path or options.config_name
    if elsewhere or any("${hydra:" in word for word in options.overrides):  # which only a job can look up
        return None
    typed = options.overrides if config_name == "eval" else None
    settings = compose_after(before, options.overrides, config_name, typed)
    if settings.sweep is not None:
        raise ConfigError(f"sweep={settings.sweep} names a sweep: add -m, and values, e.g. seed=1,2")
    return None if any(is_hydras(word) for word in options.overrides) else settings


@contextmanager
def tidied(folder: Path) -> Iterator[None]:
    """Leave nothing of Hydra's in a sweep's folder: nobody reads that, and an empty one is litter."""
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
