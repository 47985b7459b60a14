"""Our sweeper and launchers, made known to Hydra."""

from hydra.core.plugins import Plugins

from farout.commands.launching import JoblibLauncher
from farout.commands.optuna_sweeper import OptunaSweeper
from farout.commands.slurm_launcher import SlurmLauncher

OURS = (OptunaSweeper, JoblibLauncher, SlurmLauncher)
NAMES = {f"{each.__module__}.{each.__name__}" for each in OURS}


def _is_plugin(name: str) -> bool:
    return name in NAMES or _usual(name)


# Hydra takes plugins of its own packages alone, and would want another installed package for these classes.
_usual = Plugins.is_in_toplevel_plugins_module
Plugins.is_in_toplevel_plugins_module = staticmethod(_is_plugin)  # type: ignore[assignment, method-assign]
for each in OURS:
    Plugins.instance().register(each)
