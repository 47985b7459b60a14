"""A sweep from its command line to its table: its name and folder, and its jobs as they come and go."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from farout.commands.arguments import plain
from farout.config.coerce import build_dataclass
from farout.config.compose import check_overrides, hydra_on_conf, sweep_config
from farout.config.settings import LoggerSettings, Paths, Settings
from farout.engine.progress import say
from farout.engine.stopping import Terminated
from farout.errors import ConfigError, FaroutError, OutOfBudget, Pruned, one_line, shorten
from farout.report.sweeps.records import Job, SweepFolder

# Options that say how to run, not what: a sweep is the same one whatever they are.
HOW = re.compile(r"(paths\.|trainer\.|logger|sweep$|hydra/launcher|hydra\.(?!sweeper\.params))")
READABLE = 60  # characters of a name, before its hash
Part = TypeVar("Part")


@dataclass(frozen=True)
class Sweep:
    """One sweep of a command.

    Attributes:
        folder: outputs/sweeps/NAME; made when the first job begins.
        typed: the words of the command line.
        swept: the options that they give several values.
        before: words that a run's record says before them, which are no job's own.
        planned: job by key, where the jobs are known before they run.
        paths, logger: as composed; of the latter None where nothing is told to W&B.
    """

    folder: SweepFolder
    command: str
    typed: tuple[str, ...]
    swept: tuple[str, ...]
    before: tuple[str, ...]
    planned: Mapping[str, Job]
    paths: Paths
    logger: LoggerSettings | None

    @classmethod
    def of(cls, command: str, words: Sequence[str], before: Sequence[str]) -> "Sweep":
        """The sweep that a command line means; raises ConfigError where its name cannot be a folder's."""
        named = [word for word in words if _key(word) == "sweep"]
        rest = [word for word in words if word not in named]
        swept = _swept(rest)
        name = _given(named) if named else name_of(command, rest, swept)
        config = sweep_config([*before, *rest, f"sweep={name}"], command)
        paths = (None if config is None else _part(Paths, config, "paths")) or Paths()
        folder = SweepFolder(Path(paths.outputs) / "sweeps" / name)
        logger = None if config is None else _part(LoggerSettings, config, "logger")
        told = logger if logger is not None and "wandb" in logger.names else None
        own = cls(folder, command, tuple(words), swept, tuple(before), {}, paths, told)
        return own if config is None else replace(own, planned=own._plan(config))

    @property
    def words(self) -> list[str]:
        """What Hydra is told instead of the typed words."""
        return [*self.before, *(word for word in self.typed if _key(word) != "sweep"), f"sweep={self.folder.name}"]

    def own(self, words: Iterable[str]) -> tuple[str, ...]:
        """Of a job's overrides those that say what it is."""
        return tuple(each for each in words if each not in self.before and self._counts(each))

    def _counts(self, word: str) -> bool:
        return _key(word) in self.swept or not HOW.match(_key(word))

    def _plan(self, config: DictConfig) -> dict[str, Job]:
        """The jobs of Hydra's own sweeper, numbered in its order; those that the folder knows keep their numbers."""
        sweeper = config.hydra.sweeper
        if not str(sweeper._target_).endswith(f".{BasicSweeper.__name__}"):
            return {}
        params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
        task = [word for word in self.words if not re.match(r"[+~]*hydra[./]", word)]
        parsed = OverridesParser.create().parse_overrides([*params, *task])
        (jobs,) = BasicSweeper.split_arguments(parsed, None)
        known = {job.key: job.number for job in self.folder.jobs()} if self.folder.begun else {}
        found: dict[str, Job] = {}
        for words in jobs:
            job = Job(0, self.own(words))
            free = max([*known.values(), -1]) + 1
            number = known.setdefault(job.key, free)
            found[job.key] = replace(job, number=number)
        return found

    def job_of(self, words: Iterable[str], number: int) -> Job:
        """The job with these overrides, by its number in the sweep; by `number` where it was not known before."""
        job = Job(number, self.own(words))
        return self.planned.get(job.key, job)

    @contextmanager
    def job(self, words: Iterable[str], number: int) -> Iterator["Watched"]:
        """Say which job it is, and keep on the disk how far it came: whatever ends the block, its file says."""
        job = self.job_of(words, number)
        say(f"#{job.number}: {' '.join(word for word in job.overrides if _key(word) in self.swept) or 'the only job'}")
        with self.folder.held(job):
            watched = Watched(self, job, self.folder.job(job.key))
            self.folder.begin(self.command, self.typed, self.swept, list(self.planned.values()))
            self.folder.write(replace(job, state="running"))
            try:
                yield watched
            except BaseException as error:
                self.folder.write(watched.outcome(*state_after(error)))
                raise
            self.folder.write(watched.outcome("done"))

    @contextmanager
    def tabulated(self) -> Iterator[None]:
        """Whatever ends the block, the table is there; after the last job the page of all runs and W&B have it too."""
        try:
            yield
        except BaseException:
            self._tabulate(ended=False)
            raise
        self._tabulate(ended=True)

    def _tabulate(self, ended: bool) -> None:
        if not self.folder.begun:
            return
        from farout.report.sweeps.page import as_text, write_sweep

        try:
            table = write_sweep(self.folder)
        except (FaroutError, OSError) as problem:
            say(f"note: {self.folder.path} has no new table: {plain(problem)}")
            return
        say(as_text(table))
        say(f"table: {self.folder.path / 'sweep.html'}, sweep.md, sweep.csv")
        if ended:
            self._publish()

    def _publish(self) -> None:
        from farout.report.sweeps.rows import read_table
        from farout.runs.evaluation_files import renew_page
        from farout.runs.sweep_log import log_table

        if self.logger is not None:
            log_table(read_table(self.folder), self.folder.path, self.logger)
        if (Path(self.paths.outputs) / "index.html").is_file():
            renew_page(self.paths)


class Watched:
    """One job at work: what it turns out to be about."""

    def __init__(self, sweep: Sweep, job: Job, before: Job | None) -> None:
        self.sweep, self.job, self.before = sweep, job, before
        self.settings: Settings | None = None
        self.entries: int | None = None  # of the run's results.json, before an evaluation adds to them

    def begins(self, settings: Settings) -> bool:
        """Whether there is anything to do: an evaluation of before is not repeated while it answers what is asked."""
        from farout.runs.evaluation_files import complete_overview
        from farout.runs.sweep_log import entries_of, evaluated_as_asked, run_meant

        self.settings = settings
        if self.sweep.command != "eval" or (run := run_meant(settings)) is None:
            return True
        if self.before is not None and self.before.state == "done" and evaluated_as_asked(run, settings):
            complete_overview(run, settings.paths)
            say(f"nothing left to do; results: {run.results}")
            return False
        self.entries = entries_of(run)
        return True

    def outcome(self, state: str, reason: str = "") -> Job:
        """The job with what became of it."""
        from farout.runs.sweep_log import figures_since, run_meant, seen_from

        ended = replace(self.job, state=state, reason=reason)
        run = None if self.settings is None else run_meant(self.settings)
        if run is None:
            return ended
        own = self.before.evaluations if self.before is not None else ()
        if self.entries is not None:
            own = figures_since(run, self.entries)
        return replace(ended, run=seen_from(self.sweep.folder.path, run), evaluations=own)


def state_after(error: BaseException) -> tuple[str, str]:
    """What an error makes of a job, and why in a line."""
    if isinstance(error, Pruned):
        return "pruned", plain(error)
    if isinstance(error, OutOfBudget):
        return "interrupted", plain(error)
    if isinstance(error, KeyboardInterrupt | Terminated):
        return "interrupted", one_line(str(error)) or "stopped by a signal"
    if isinstance(error, FaroutError | OSError):
        return "failed", plain(error)
    return "failed", one_line(f"{type(error).__name__}: {error}")


def name_of(command: str, words: Sequence[str], swept: Sequence[str]) -> str:
    """A name that follows from the words, in whatever order: the options swept over, and a hash of all that counts."""
    counted = sorted(word for word in words if _key(word) in swept or not HOW.match(_key(word)))
    readable = re.sub(r"[^\w.+-]+", "-", "-".join([*(["eval"] if command == "eval" else []), *sorted(swept)]))
    digest = hashlib.sha256(json.dumps([command, counted]).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{readable[:READABLE].strip('-.') or 'sweep'}-{digest}"


def _given(named: Sequence[str]) -> str:
    from farout.runs.records import is_run_name

    name = named[-1].partition("=")[2].strip("'\"")
    if not is_run_name(name):
        raise ConfigError(f"sweep={shorten(name)} is no name of a folder: use letters, digits and _ . @ + - alone")
    return name


def _swept(words: Sequence[str]) -> tuple[str, ...]:
    """Options with several values, on the command line or in the sweeper's own list of them."""
    with hydra_on_conf():
        parsed = check_overrides(words)
    mine = [each.get_key_element().lstrip("+~") for each in parsed if each.is_sweep_override()]
    params = [each.key_or_group.removeprefix("hydra.sweeper.params.") for each in parsed]
    return (*mine, *(key for key, each in zip(params, parsed, strict=True) if key != each.key_or_group))


def _part(kind: type[Part], config: DictConfig, key: str) -> Part | None:
    """A group of a composition; None where it cannot be read, which its jobs will say."""
    try:
        values = OmegaConf.to_container(config[key], resolve=True)
        return build_dataclass(kind, values, key)
    except (ConfigError, OmegaConfBaseException):
        return None


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]
