"""Training objectives: one paper, one file."""

from farout.methods.base import Batch, Method, joint_logits
from farout.methods.cider import CIDER
from farout.methods.cross_entropy import CrossEntropy
from farout.methods.energy import EnergyFineTuning
from farout.methods.jem import JEM
from farout.methods.outlier_exposure import OutlierExposure
from farout.methods.supcon import SupCon

__all__ = [
    "CIDER",
    "JEM",
    "Batch",
    "CrossEntropy",
    "EnergyFineTuning",
    "Method",
    "OutlierExposure",
    "SupCon",
    "joint_logits",
]
