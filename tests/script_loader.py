"""The commands of scripts/ as modules, for tests that call their `main`: no new process for each."""

import importlib.util
import sys
from types import ModuleType

from farout.config.settings import ROOT


def load_script(name: str) -> ModuleType:
    """scripts/NAME.py, executed anew."""
    spec = importlib.util.spec_from_file_location(f"{name.replace('/', '_')}_script", ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
