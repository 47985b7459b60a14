"""Evaluate a finished run: the overrides that trained it find it, `run=PATH` names one; see --help."""

from farout.launch.cli import main
from farout.launch.training import evaluate

if __name__ == "__main__":
    main("eval", evaluate)
