"""The first lines of train.py and eval.py: signals are heard before the seconds that loading PyTorch takes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from farout.engine import stopping

if TYPE_CHECKING:
    from farout.config.settings import Settings
    from farout.runs.validation import Report


def train(settings: Settings, report: Report | None = None) -> Any:
    """`farout.runs.training.train`, loaded when there is something to train: a refused command needs none of it."""
    from farout.runs.training import train

    return train(settings, report=report)


def evaluate(settings: Settings) -> Any:
    """`farout.runs.evaluation.evaluate`, likewise."""
    from farout.runs.evaluation import evaluate

    return evaluate(settings)


def start_train() -> NoReturn:
    """The console command farout-train."""
    start("train")


def start_eval() -> NoReturn:
    """The console command farout-eval."""
    start("eval")


def start(name: str) -> NoReturn:
    """Run the command `name` (train, eval) with this process's arguments; exits with its status."""
    with stopping.signals():
        try:
            from farout.commands.cli import main

            main(name, train if name == "train" else evaluate)
        except (KeyboardInterrupt, stopping.Terminated) as stop:
            sys.exit(stopping.report_stop(stop))
