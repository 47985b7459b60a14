"""Settings from overrides without a command line: what scripts that run many rows use."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from farout.errors import ConfigError
from farout.launch.settings import ROOT, Settings, parse


def compose_settings(overrides: Sequence[str], config_name: str = "train") -> Settings:
    """The settings of `python train.py OVERRIDES...`; raises ConfigError in one line."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return parse(compose(config_name, list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from None
