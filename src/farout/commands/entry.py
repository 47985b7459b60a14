"""The first lines of train.py and eval.py: signals are heard before the seconds that loading PyTorch takes."""

import sys
from typing import NoReturn

from farout.engine import stopping


def start(name: str) -> NoReturn:
    """Run the command `name` (train, eval) with this process's arguments; exits with its status."""
    with stopping.signals():
        try:
            from farout.commands.cli import main
            from farout.runs.evaluation import evaluate
            from farout.runs.training import train

            main(name, train if name == "train" else evaluate)
        except (KeyboardInterrupt, stopping.Terminated) as stop:
            sys.exit(stopping.report_stop(stop))
