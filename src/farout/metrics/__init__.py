"""Detection, calibration, geometry, and the protocols that papers measure by; fractions, never percent."""

from typing import TYPE_CHECKING

from farout.lazy import lazy_names

if TYPE_CHECKING:  # for type checkers and editors: the same names as below
    from farout.metrics.bootstrap import Convention, Resampling, bootstrap_intervals, paired_intervals
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
    from farout.metrics.geometry import (
        class_directions,
        compactness_degrees,
        dispersion_degrees,
        nearest_degrees,
        separability_degrees,
    )
    from farout.metrics.protocol import Protocol, mean_over_sets

__all__ = [
    "Convention",
    "Protocol",
    "ReliabilityCurve",
    "Resampling",
    "bootstrap_intervals",
    "both_conventions",
    "calibration_error",
    "class_directions",
    "compactness_degrees",
    "detection_metrics",
    "dispersion_degrees",
    "expected_calibration_error",
    "mean_over_sets",
    "nearest_degrees",
    "paired_intervals",
    "reliability_curve",
    "rescale_confidence",
    "separability_degrees",
    "soft_f1",
    "tune_temperature",
]

_MODULES = {
    "farout.metrics.bootstrap": ("Convention", "Resampling", "bootstrap_intervals", "paired_intervals"),
    "farout.metrics.calibration": (
        "ReliabilityCurve",
        "calibration_error",
        "expected_calibration_error",
        "reliability_curve",
        "rescale_confidence",
        "soft_f1",
        "tune_temperature",
    ),
    "farout.metrics.detection": (
        "both_conventions",
        "detection_metrics",
    ),
    "farout.metrics.geometry": (
        "class_directions",
        "compactness_degrees",
        "dispersion_degrees",
        "nearest_degrees",
        "separability_degrees",
    ),
    "farout.metrics.protocol": (
        "Protocol",
        "mean_over_sets",
    ),
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
