"""What one job of a sweep was about, and a sweep's table in Weights & Biases."""

import os
from pathlib import Path
from typing import Any

from farout.config.settings import LoggerSettings, Settings
from farout.engine.progress import say
from farout.errors import FaroutError, one_line
from farout.report.overview.listing import figures_of
from farout.report.sweeps.rows import SweepTable
from farout.runs.dependencies import already_evaluated
from farout.runs.environment import choose_device
from farout.runs.records import DamagedResults, read_results
from farout.runs.run import Run, open_run, run_of, settings_for
from farout.runs.wandb_log import place_of, wandb_id


def run_meant(settings: Settings) -> Run | None:
    """The run of a job, as far as one can be told: of a training by what determines its weights, or as it was named."""
    try:
        return open_run(settings.run) if settings.run else run_of(settings, choose_device(settings.trainer.device))
    except (FaroutError, OSError):
        return None


def seen_from(sweep: Path, run: Run) -> str | None:
    """The run's folder from the sweep's; None where there is none."""
    return os.path.relpath(run.folder, sweep) if run.folder.is_dir() else None


def entries_of(run: Run | None) -> int:
    """How many entries results.json has."""
    try:
        return 0 if run is None else len(read_results(run.folder)["evaluations"])
    except DamagedResults:
        return 0


def figures_since(run: Run, number: int) -> list[dict[str, Any]]:
    """What a run's evaluations after the first `number` entries amount to, without single sets."""
    return [{key: value for key, value in each.items() if key != "sets"} for each in figures_of(run.folder, number)]


def evaluated_as_asked(run: Run, settings: Settings) -> bool:
    """Whether results.json answers an evaluation already."""
    try:
        return run.finished and already_evaluated(run, settings_for(settings, run) if settings.run else settings)
    except FaroutError:
        return False


def log_table(table: SweepTable, folder: Path, settings: LoggerSettings) -> None:
    """One W&B run for the sweep, with its table; what goes wrong is one line, as the table is on the disk."""
    try:
        import wandb

        run = wandb.init(
            **place_of(settings),
            mode=settings.mode,
            dir=str(folder),
            id=wandb_id(f"sweep-{table.name}"),
            name=table.name,
            group=table.name,
            job_type="sweep",
            resume="allow",
            config=_config(table),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )
        columns: list[str | int] = [*table.head()]
        rows = [table.values(row) for row in table.rows]
        run.log({"sweep": wandb.Table(columns=columns, data=rows, allow_mixed_types=True)})
        run.finish()
    except Exception as problem:
        reason = one_line(str(problem).strip().split("\n")[0]) or type(problem).__name__
        say(f"note: Weights & Biases has no table of this sweep ({reason}); {folder / 'sweep.csv'} has it")


def _config(table: SweepTable) -> dict[str, Any]:
    return {"command": table.command, "fixed": list(table.fixed), "knobs": list(table.knobs)}
