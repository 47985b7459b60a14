"""Detection, calibration and the protocols that papers measure them by; fractions, never percent."""

from farout.metrics.calibration import (
    calibration_error,
    expected_calibration_error,
    rescale_confidence,
    soft_f1,
    tune_temperature,
)
from farout.metrics.detection import detection_metrics
from farout.metrics.protocol import Protocol, mean_over_sets

__all__ = [
    "Protocol",
    "calibration_error",
    "detection_metrics",
    "expected_calibration_error",
    "mean_over_sets",
    "rescale_confidence",
    "soft_f1",
    "tune_temperature",
]
