"""Training objectives: one paper, one file."""

from farout.methods.base import Batch, Method, joint_logits
from farout.methods.cross_entropy import CrossEntropy
from farout.methods.energy import EnergyFineTuning
from farout.methods.outlier_exposure import OutlierExposure

__all__ = ["Batch", "CrossEntropy", "EnergyFineTuning", "Method", "OutlierExposure", "joint_logits"]
