"""Detection, calibration and the protocols that papers measure them by; fractions, never percent."""

from farout.metrics.bootstrap import bootstrap_intervals
from farout.metrics.calibration import (
    ReliabilityCurve,
    calibration_error,
    expected_calibration_error,
    reliability_curve,
    rescale_confidence,
    soft_f1,
    tune_temperature,
)
from farout.metrics.detection import both_conventions, detection_metrics
from farout.metrics.protocol import Protocol, mean_over_sets

__all__ = [
    "Protocol",
    "ReliabilityCurve",
    "bootstrap_intervals",
    "both_conventions",
    "calibration_error",
    "detection_metrics",
    "expected_calibration_error",
    "mean_over_sets",
    "reliability_curve",
    "rescale_confidence",
    "soft_f1",
    "tune_temperature",
]
