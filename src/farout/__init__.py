"""farout: out-of-distribution detection, reproduced (Energy, Outlier Exposure, JEM, CIDER)."""

import os
from typing import TYPE_CHECKING, Any

from farout.version import __version__

if TYPE_CHECKING:
    from farout.detector import Detector

__all__ = ["Detector", "__version__"]

# OpenMP threads that spin while they wait for a core that another process holds make training on a shared machine
# 11 times slower (ResNet-20 on 2 cores under a load of 4). It must be said before torch loads its OpenMP library.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def __getattr__(name: str) -> Any:
    """`farout.Detector` loads torch when it is first asked for: `import farout` stays cheap."""
    if name == "Detector":
        from farout.detector import Detector

        return Detector
    raise AttributeError(f"module 'farout' has no attribute {name!r}")
