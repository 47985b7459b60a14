"""Where curves and results go: JSON lines in the run folder always, W&B, CSV and TensorBoard where asked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from farout.config.settings import LoggerSettings, Settings
from farout.errors import FaroutError, OutOfBudget, one_line
from farout.files import append_line
from farout.runs.csv_log import CsvLog
from farout.runs.records import DamagedResults, read_results
from farout.runs.run import Run
from farout.runs.sink import Sink
from farout.runs.status import FAILED
from farout.runs.tensorboard_log import TensorBoardLog, require_tensorboard
from farout.runs.wandb_log import JobType, Session, WandbLog, group_of, reason


class RunLogger:
    """One run's log in one command: the JSON lines, and the other logs that were asked for."""

    def __init__(
        self, folder: Path, settings: LoggerSettings, config: Mapping[str, Any], session: Session | None = None
    ) -> None:
        self.lines, self.step = folder / "metrics.jsonl", 0
        self.wandb = WandbLog(folder, settings, config, session or Session()) if "wandb" in settings.names else None
        self.sinks: list[Sink] = [] if self.wandb is None else [self.wandb]
        self.sinks += [CsvLog(folder)] if "csv" in settings.names else []
        self.sinks += [TensorBoardLog(folder)] if "tensorboard" in settings.names else []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A point of the curves."""
        self._write({"step": step, **values})
        for sink in self.sinks:
            sink.log(step, values)

    def alert(self, step: int, title: str, text: str, facts: Mapping[str, Any]) -> None:
        """Something that a person should know of: a line among the curves, and W&B's alert."""
        self._write({"step": step, "event": title, "text": text, **facts})
        for sink in self.sinks:
            sink.alert(step, title, text)

    def failed(self, error: Exception) -> None:
        """What ended the work: the last of the lines, which `scripts/status.py` shows."""
        text = one_line(str(error)) or type(error).__name__
        with suppress(FaroutError):  # the disk, which may be what ended it
            self._write({"step": self.step, "event": FAILED, "text": text})

    def _write(self, line: Mapping[str, Any]) -> None:
        append_line(self.lines, json.dumps(line).encode())
        self.step = line["step"]

    def picture(self, step: int, name: str, path: Path) -> None:
        """A picture of the state of training, a file in the run folder."""
        for sink in self.sinks:
            sink.picture(step, name, path)

    def results(self, evaluations: Sequence[Mapping[str, Any]], plots: Sequence[Path]) -> None:
        """Final metrics per OOD set, the table and the plots."""
        number = len(evaluations)
        with suppress(DamagedResults):
            number += len(read_results(self.lines.parent)["evaluations"])
        for sink in self.sinks:
            sink.results(number, evaluations, plots)

    def samples(self, pictures: Sequence[Path], figures: Mapping[str, float]) -> None:
        """What the trained network generates, and how good that is."""
        for sink in self.sinks:
            sink.samples(pictures, figures)

    def close(self, failed: bool = False) -> None:
        """Let every log end."""
        for sink in self.sinks:
            sink.close(failed)


@contextmanager
def run_logger(run: Run, settings: Settings, job_type: JobType, asked: bool = True) -> Iterator[RunLogger]:
    """The log of one command's work on a run, closed whatever happens; its folder exists by now.

    `asked` is False of a parent that the command's own run needs.
    """
    session = Session(job_type, group_of(settings), asked, known_in_wandb(run))
    with logged(run, settings.logger, session, config_of(settings, run.identity)) as logger:
        yield logger


@contextmanager
def logged(
    run: Run, settings: LoggerSettings, session: Session, config: Mapping[str, Any] | None = None
) -> Iterator[RunLogger]:
    """The same, where only the logger has settings; the caller holds the run's lock."""
    own = settings if run.writable else replace(settings, name="none")  # nothing can be kept there
    logger = RunLogger(run.folder, own, config or {}, session)
    failed = True
    try:
        if logger.wandb is not None:
            _keep_identity(run, logger.wandb.identity, session)
        yield logger
        failed = False
    except OutOfBudget:
        raise
    except Exception as error:
        logger.failed(error)
        raise
    finally:
        logger.close(failed)


def known_in_wandb(run: Run) -> dict[str, str]:
    """What W&B called a run before; nothing where it knows none."""
    return dict(run.record.get("wandb") or {})


def _keep_identity(run: Run, identity: Mapping[str, str], session: Session) -> None:
    """Let later commands find the W&B run that training had; where that had none, the first one's."""
    if identity and identity != session.known and (session.job_type == "train" or not session.known):
        run.write_record(wandb=dict(identity))


def require_packages(settings: LoggerSettings) -> None:
    """Raise FaroutError where a logger's package cannot be imported: before a run's folder is made."""
    if "tensorboard" in settings.names:
        require_tensorboard()
    if "wandb" in settings.names:
        try:
            import wandb  # noqa: F401
        except Exception as error:
            raise FaroutError(f"Weights & Biases cannot be imported ({reason(error)}): use logger=none") from error


def config_of(settings: Settings, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What W&B shows as the run's configuration: its identity, and how it was run."""
    return {**identity, "scale": settings.scale, "trainer": asdict(settings.trainer)}
