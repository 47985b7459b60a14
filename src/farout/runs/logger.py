"""Where curves and results go: JSON lines in the run folder always, Weights & Biases where asked."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from farout.config.settings import LoggerSettings, Settings
from farout.engine.progress import say
from farout.errors import FaroutError, one_line, printable
from farout.files import append_line
from farout.runs.run import Run

NAME_LENGTH = 100  # of what W&B is given: folders of that name, with a date before it, must be possible


class RunLogger:
    """One run's log; training and later evaluations of a run share one W&B run through its name."""

    def __init__(self, folder: Path, settings: LoggerSettings, config: Mapping[str, Any]) -> None:
        self.lines = folder / "metrics.jsonl"
        self.wandb = _start_wandb(folder, settings, config) if settings.name == "wandb" else None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A point of the curves."""
        self._write({"step": step, **values})
        self._tell(lambda run: run.log({**values, "step": step}))

    def alert(self, step: int, title: str, text: str, facts: Mapping[str, Any]) -> None:
        """Something that a person should know of: a line among the curves, and W&B's alert."""
        self._write({"step": step, "event": title, "text": text, **facts})
        self._tell(lambda run: run.alert(title=title, text=text))

    def _write(self, line: Mapping[str, Any]) -> None:
        append_line(self.lines, json.dumps(line).encode())

    def picture(self, step: int, name: str, path: Path) -> None:
        """A picture of the state of training, a file in the run folder."""
        self._tell(lambda run: run.log({f"pictures/{name}": _image(path), "step": step}))

    def results(self, evaluations: Sequence[Mapping[str, Any]], plots: Sequence[Path]) -> None:
        """Final metrics per OOD set, the table and the plots."""
        columns = ["protocol", "score", "ood", "fpr95", "auroc", "aupr", "n_id", "n_ood"]
        rows = [_row(evaluation, row, columns) for evaluation in evaluations for row in evaluation["rows"]]

        def tell(run: Any) -> None:
            import wandb

            for evaluation in evaluations:
                run.summary.update(summary_of(evaluation))
            images = {f"plots/{plot.stem}": _image(plot) for plot in plots}
            run.log({"results": wandb.Table(columns=list[str | int](columns), data=rows), **images})

        self._tell(tell)

    def close(self, failed: bool = False) -> None:
        """Finish the W&B run."""
        self._tell(lambda run: run.finish(exit_code=1 if failed else 0))

    def _tell(self, what: Callable[[Any], object]) -> None:
        """Let W&B know, where it runs; what stops it (the disk, the network) does not stop training."""
        if self.wandb is None:
            return
        try:
            what(self.wandb)
        except Exception as error:
            self.wandb = None
            say(f"note: Weights & Biases stopped ({_reason(error)}); without it the curves are in {self.lines}")


@contextmanager
def run_logger(run: Run, settings: Settings) -> Iterator[RunLogger]:
    """The log of one command's work on a run, closed whatever happens; its folder exists by now."""
    own = settings.logger if run.writable else replace(settings.logger, name="none")  # nothing can be kept there
    logger = RunLogger(run.folder, own, config_of(settings, run.identity))
    failed = True
    try:
        yield logger
        failed = False
    finally:
        logger.close(failed)


def summary_of(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Flat names as they stand in W&B: PROTOCOL/SCORE/SET/METRIC, id/accuracy, id/ece."""
    protocol = evaluation["protocol"]["name"]
    own = {"id/accuracy": evaluation["id"]["accuracy"], f"{protocol}/id/ece": evaluation["id"]["ece"]}
    flat = {key: value for key, value in own.items() if value is not None}
    means = [{**mean, "ood": "mean"} for mean in evaluation["means"]]
    means += [{**mean, "ood": f"mean_{mean['group']}"} for mean in evaluation.get("group_means", ())]
    for row in [*evaluation["rows"], *means]:
        for metric in ("fpr95", "auroc", "aupr"):
            if row[metric] is not None:
                flat[f"{protocol}/{row['score']}/{row['ood']}/{metric}"] = row[metric]
    return flat


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


def _reason(error: Exception) -> str:
    return one_line(str(error).strip().split("\n")[0]) or type(error).__name__


def require_package(settings: LoggerSettings) -> None:
    """Raise FaroutError where the logger's package cannot be imported: before a run's folder is made."""
    if settings.name == "wandb":
        try:
            import wandb  # noqa: F401
        except Exception as error:
            raise FaroutError(f"Weights & Biases cannot be imported ({_reason(error)}): use logger=none") from error


def _start_wandb(folder: Path, settings: LoggerSettings, config: Mapping[str, Any]) -> Any:
    name = folder.name or folder.absolute().name
    try:
        import wandb

        return wandb.init(
            project=settings.project,
            mode=settings.mode,
            dir=str(folder),
            id=wandb_id(name),
            name=printable(name, NAME_LENGTH),
            resume="allow",
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )
    except Exception as error:
        offline = " or logger.mode=offline" if settings.mode in ("online", "shared") else ""
        raise FaroutError(f"Weights & Biases did not start ({_reason(error)}): use logger=none{offline}") from error


def config_of(settings: Settings, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What W&B shows as the run's configuration: its identity, and how it was run."""
    return {**identity, "scale": settings.scale, "trainer": asdict(settings.trainer)}
