"""Evaluate a finished run: the overrides that trained it find it, `run=PATH` names one; see --help."""

from farout.commands.entry import start

if __name__ == "__main__":
    start("eval")
