"""The classes and functions of this package that configuration files name."""

import importlib
from typing import Any


def locate(target: str) -> Any:
    """What a dotted path inside farout names; None where it leads elsewhere.

    Names come from files that anybody may have written, and importing a module runs it: whatever is not of this
    package is refused by its name alone.

    Raises:
        ImportError, AttributeError, ValueError, TypeError: farout has nothing of that name.
    """
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name) if module.partition(".")[0] == "farout" else None
