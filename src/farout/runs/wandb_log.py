"""A run in Weights & Biases: one there for one here, across resumes and later evaluations, also of a sweep's agent."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from farout.config.settings import LoggerSettings, Settings
from farout.engine.progress import say
from farout.errors import FaroutError, one_line, printable
from farout.runs.sink import Sink, headline_of, summary_of

NAME_LENGTH = 100  # of what W&B is given: folders of that name, with a date before it, must be possible
PROJECT = "farout"
PLACE = ("project", "entity")
JobType = Literal["train", "evaluate", "sample"]
# By which the agent of a W&B sweep says to the command that it starts which run that is.
AGENT = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")
# What training logs has the step of training as its axis, what evaluations find the number of evaluations so far.
STEP, EVALUATION = "step", "evaluation"
TRAINING = ("train/*", "holdout/*", "validation/*", "pictures/*", "lr", "images_per_s", "seconds", "selection")


@dataclass(frozen=True)
class Session:
    """What one command does to a run, as far as W&B is told of it.

    Args:
        job_type: what it does.
        group: the sweep or the table that the run is of.
        asked: whether the command is about this very run: a parent that it needs is not the run of a sweep's agent.
        known: what W&B called the run before: its id, project and entity.
    """

    job_type: JobType = "train"
    group: str | None = None
    asked: bool = True
    known: Mapping[str, str] = field(default_factory=dict)


class WandbLog(Sink):
    """A run there. What stops it later (the disk, the network) does not stop training.

    Raises FaroutError where it does not start.

    Attributes:
        identity: id, project and entity there; nothing where W&B is disabled.
    """

    def __init__(self, folder: Path, settings: LoggerSettings, config: Mapping[str, Any], session: Session) -> None:
        self.lines = folder / "metrics.jsonl"
        self.apart = not session.asked and any(name in os.environ for name in AGENT)
        try:
            with _without_agent() if self.apart else _as_it_is():
                self.run: Any = _started(folder, settings, config, session)
        except Exception as error:
            offline = " or logger.mode=offline" if settings.mode in ("online", "shared") else ""
            raise FaroutError(f"Weights & Biases did not start ({reason(error)}): use logger=none{offline}") from error
        parts = {} if settings.mode == "disabled" else {name: _text(self.run, name) for name in ("id", *PLACE)}
        self.identity = {name: value for name, value in parts.items() if value}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._tell(lambda run: run.log({**values, STEP: step}))

    def alert(self, step: int, title: str, text: str) -> None:
        self._tell(lambda run: run.alert(title=title, text=text))

    def picture(self, step: int, name: str, path: Path) -> None:
        self._tell(lambda run: run.log({f"pictures/{name}": _image(path), STEP: step}))

    def results(self, number: int, evaluations: Sequence[Mapping[str, Any]], plots: Sequence[Path]) -> None:
        """All figures into the summary, the headline also as a point over evaluations, the table and the plots."""
        columns = ["protocol", "score", "ood", "fpr95", "auroc", "aupr", "n_id", "n_ood"]
        rows = [_row(evaluation, row, columns) for evaluation in evaluations for row in evaluation["rows"]]

        def tell(run: Any) -> None:
            import wandb

            point: dict[str, Any] = {EVALUATION: number}
            for evaluation in evaluations:
                run.summary.update(summary_of(evaluation))
                run.define_metric(f"{evaluation['protocol']['name']}/*", step_metric=EVALUATION)
                point |= headline_of(evaluation)
            images = {f"plots/{plot.stem}": _image(plot) for plot in plots}
            run.log({**point, "results": wandb.Table(columns=list[str | int](columns), data=rows), **images})

        self._tell(tell)

    def samples(self, pictures: Sequence[Path], figures: Mapping[str, float]) -> None:
        self._tell(lambda run: run.log({**figures, **{f"samples/{path.stem}": _image(path) for path in pictures}}))

    def close(self, failed: bool) -> None:
        self._tell(lambda run: run.finish(exit_code=1 if failed else 0))
        if self.apart:
            _read_environment_anew()

    def _tell(self, what: Callable[[Any], object]) -> None:
        if self.run is None:
            return
        try:
            what(self.run)
        except Exception as error:
            self.run = None
            say(f"note: Weights & Biases stopped ({reason(error)}); without it the curves are in {self.lines}")


def _started(folder: Path, settings: LoggerSettings, config: Mapping[str, Any], session: Session) -> Any:
    import wandb

    run = wandb.init(
        **names_of(folder, settings, session),
        mode=settings.mode,
        dir=str(folder),
        resume="allow",
        config=dict(config),
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
    )
    for axis in (STEP, EVALUATION):
        run.define_metric(axis, hidden=True)
    for name in TRAINING:
        run.define_metric(name, step_metric=STEP)
    for name in ("id/*", "plots/*"):
        run.define_metric(name, step_metric=EVALUATION)
    return run


def names_of(folder: Path, settings: LoggerSettings, session: Session) -> dict[str, Any]:
    """What W&B is to know a run by. None leaves it to its own variables: they come after what was typed, before ours.

    Under the agent of a sweep the run is the agent's.
    """
    name, known = folder.name or folder.absolute().name, session.known
    found = {
        **place_of(settings, known),
        "id": (session.asked and os.environ.get("WANDB_RUN_ID")) or known.get("id") or wandb_id(name),
    }
    if session.asked and under_an_agent():
        found = dict.fromkeys(found)
    return {
        **found,
        "group": _chosen(settings.group, "WANDB_RUN_GROUP", session.group),
        "job_type": _chosen(settings.job_type, "WANDB_JOB_TYPE", session.job_type),
        "name": _chosen(None, "WANDB_NAME", printable(name, NAME_LENGTH)),
        "tags": settings.tags,
        "notes": settings.notes,
    }


def under_an_agent() -> bool:
    """Whether the agent of a W&B sweep has started this command."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def place_of(settings: LoggerSettings, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Project and entity of a run, by what it was `known` by before; None leaves it to W&B."""
    before = known or {}
    return {
        "project": _chosen(settings.project, "WANDB_PROJECT", before.get("project", PROJECT)),
        "entity": _chosen(settings.entity, "WANDB_ENTITY", before.get("entity")),
    }


def _chosen(typed: str | None, variable: str, ours: str | None) -> str | None:
    if typed is not None:
        return typed
    return None if os.environ.get(variable) else ours


def group_of(settings: Settings) -> str | None:
    """The sweep that a run is of, else the table of a paper that it is a row of (PAPER-SCALE-ID), else none."""
    agent, composition = os.environ.get("WANDB_SWEEP_ID"), settings.composition
    if agent or composition is None:
        return agent or None
    row = re.fullmatch(r"(\w+)/(\w+)/\w+", str(composition.choices.get("experiment")))
    table = None if row is None else f"{row[1]}-{row[2]}-{settings.id_data.name}"
    return settings.sweep or table


@contextmanager
def _without_agent() -> Iterator[None]:
    """W&B as it is where no agent started the command."""
    agent = {name: os.environ.pop(name) for name in AGENT if name in os.environ}
    _read_environment_anew()
    try:
        yield
    finally:
        os.environ.update(agent)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def _read_environment_anew() -> None:
    """W&B reads its variables once a process, unless it is made to begin again."""
    import wandb

    wandb.teardown()


def _row(evaluation: Mapping[str, Any], row: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
    return [{**row, "protocol": evaluation["protocol"]["name"]}[column] for column in columns]


def wandb_id(name: str) -> str:
    """A run's name as an id that W&B takes: the name itself, or a readable part of it with its hash."""
    readable = re.sub(r"[^\w.@+-]", "-", name, flags=re.ASCII)
    if readable == name and len(name) <= NAME_LENGTH:
        return name
    return f"{readable[: NAME_LENGTH - 9]}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def _image(path: Path) -> Any:
    import wandb

    return wandb.Image(str(path))


def _text(run: Any, name: str) -> str | None:
    value = getattr(run, name, None)
    return value if isinstance(value, str) else None


def reason(error: Exception) -> str:
    """An error of a package, as a message shows it."""
    return one_line(str(error).strip().split("\n")[0]) or type(error).__name__
