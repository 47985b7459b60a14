"""The commands behind scripts/ as modules, for tests that call their `main`: no new process for each."""

from importlib import import_module
from types import ModuleType


def load_script(name: str) -> ModuleType:
    """What scripts/NAME.py is the door to."""
    return import_module(f"farout.commands.{name.replace('/', '.')}")
