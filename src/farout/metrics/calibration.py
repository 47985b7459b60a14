"""Calibration: whether predictions of confidence 0.8 are right in 80 % of the cases; ECE, other errors, temperature.

ECE is that of Guo et al. (2017); the other measures and the search for the temperature are those of Outlier
Exposure (hendrycks/outlier-exposure).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from farout.errors import ConfigError, FaroutError
from farout.metrics.vectors import Vector, VectorLike, finite_vector

if TYPE_CHECKING:  # a reliability diagram is drawn without PyTorch
    from torch import Tensor

_NORMS = ("rms", "mad", "max")
_ROUNDING = 1e-6  # a float32 softmax may exceed 1 by this much


@dataclass(frozen=True)
class ReliabilityCurve:
    """What a reliability diagram shows, bin by bin in order of confidence.

    Attributes:
        lower, upper: (B,) a bin's edges; of bins by size, its least and greatest confidence.
        confidence, accuracy: (B,) means over the bin's images; NaN where the bin is empty.
        count: (B,) images.
    """

    lower: Vector
    upper: Vector
    confidence: Vector
    accuracy: Vector
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Mean |accuracy - confidence|, bins weighted by their images: of equally wide bins, the ECE."""
        return float(np.nansum(self.count * np.abs(self.accuracy - self.confidence)) / self.count.sum())

    def as_bins(self) -> dict[str, list[Any]]:
        """For a record: count, and confidence and accuracy to six decimals, None where a bin is empty."""
        means = {"confidence": self.confidence, "accuracy": self.accuracy}
        filled = self.count > 0
        return {
            "count": self.count.tolist(),
            **{
                name: [round(float(x), 6) if some else None for x, some in zip(values, filled, strict=True)]
                for name, values in means.items()
            },
        }

    @classmethod
    def of_bins(cls, bins: Mapping[str, Any]) -> ReliabilityCurve:
        """The curve of equally wide bins from `as_bins`; raises FaroutError where the three lists do not fit."""
        count = np.asarray(bins["count"], dtype=np.int64)
        confidence, accuracy = (np.asarray(bins[name], dtype=np.float64) for name in ("confidence", "accuracy"))
        if not count.sum() or any(values.shape != count.shape for values in (confidence, accuracy)):
            raise FaroutError("the bins of a reliability diagram need as many counts as means, and an image in one")
        edges = np.linspace(0.0, 1.0, count.size + 1)
        return cls(edges[:-1], edges[1:], confidence, accuracy, count)


def reliability_curve(
    confidence: VectorLike, correct: VectorLike, bins: int = 15, bin_size: int | None = None
) -> ReliabilityCurve:
    """Mean confidence and accuracy over `bins` equally wide bins, or over bins of `bin_size` images.

    The equally wide bins are those of `expected_calibration_error`, of which the curve is the picture; bins by size
    are those of `calibration_error`, all of them. Raises as these two.
    """
    if bin_size is not None:
        return _by_size(*_checked(confidence, correct), bin_size)
    _check_bins(bins)
    confidence, correct = _checked(confidence, correct)
    edges, index = _equal_width(confidence, bins)
    count, confidence_sum, correct_sum = (
        np.bincount(index, weights, minlength=bins) for weights in (None, confidence, correct)
    )
    with np.errstate(invalid="ignore"):
        return ReliabilityCurve(edges[:-1], edges[1:], confidence_sum / count, correct_sum / count, count)


def expected_calibration_error(confidence: VectorLike, correct: VectorLike, bins: int = 15) -> float:
    """Mean |accuracy - confidence| over equally wide bins (lower, upper], weighted by their share of images.

    Args:
        confidence: (N,) probabilities of the predicted class, in [0, 1]; 0 itself counts into the first bin.
        correct: (N,) bool or 0/1, whether the prediction was right.

    Raises FaroutError for empty, NaN or mismatched arguments, or for confidences that are no probabilities.
    """
    _check_bins(bins)
    confidence, correct = _checked(confidence, correct)
    _, index = _equal_width(confidence, bins)
    gaps = np.bincount(index, weights=correct - confidence, minlength=bins)
    return float(np.sum(np.abs(gaps)) / confidence.size)


def calibration_error(
    confidence: VectorLike,
    correct: VectorLike,
    bin_size: int = 100,
    norm: str = "rms",
    skip_last_bin: bool = True,
) -> float:
    """Calibration error over bins of `bin_size` images of similar confidence; the last takes the rest.

    `norm` is "rms" (root mean square gap), "mad" (mean absolute gap) or "max". The official code leaves out
    the last, most confident bin but still divides by all N; its value below two full bins is therefore 0.
    `skip_last_bin=False` counts every bin.

    Raises FaroutError for fewer than `bin_size` images and for the arguments that
    `expected_calibration_error` refuses.
    """
    if norm not in _NORMS:
        raise ConfigError(f"norm={norm!r}: choose one of {', '.join(_NORMS)}")
    confidence, correct = _checked(confidence, correct)
    order, starts, sizes = _size_bins(confidence, bin_size)
    gaps = np.abs(np.add.reduceat((correct - confidence)[order], starts)) / sizes
    if skip_last_bin:
        gaps, sizes = gaps[:-1], sizes[:-1]
    weights = sizes / confidence.size
    if norm == "max":
        return float(np.max(gaps, initial=0.0))
    if norm == "mad":
        return float(np.sum(weights * gaps))
    return float(np.sqrt(np.sum(weights * gaps**2)))


def soft_f1(confidence: VectorLike, correct: VectorLike) -> float:
    """F1 of finding the errors by 1 - confidence: 2 sum (1-c)(1-y) / sum ((1-c) + (1-y)).

    0 where there is neither an error nor a doubt. Raises as `expected_calibration_error`.
    """
    confidence, correct = _checked(confidence, correct)
    doubt, error = 1 - confidence, 1 - correct
    total = float(np.sum(doubt + error))
    return 2 * float(np.sum(doubt * error)) / total if total > 0 else 0.0


def rescale_confidence(confidence: VectorLike, num_classes: int) -> Vector:
    """Maps confidences from [1/K, 1] onto [0, 1], so that a uniform prediction has none."""
    if num_classes < 2:
        raise FaroutError(f"num_classes={num_classes}: confidence has no range to rescale below two classes")
    chance = 1 / num_classes
    return (finite_vector(confidence, "confidences") - chance) / (1 - chance)


def tune_temperature(
    logits: Tensor, labels: Tensor, lower: float = 0.2, upper: float = 5.0, width: float = 1e-4
) -> float:
    """The temperature T in [lower, upper] with the least cross entropy of logits / T on held-out images.

    Bisection on the sign of the derivative, as in the official code; logits (N, C), labels (N,).
    """
    from torch.nn.functional import cross_entropy

    if logits.dim() != 2 or labels.shape != logits.shape[:1] or len(logits) == 0:
        raise FaroutError(
            f"temperature tuning needs logits (N, C) and labels (N,), not {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}"
        )
    logits, labels = logits.detach().double(), labels.long()
    if not bool(logits.isfinite().all()):
        raise FaroutError("temperature tuning met NaN or infinite logits: did training diverge?")
    while upper - lower > width:
        middle = (lower + upper) / 2
        if _slope(logits, labels, middle) > 0:
            upper = middle
        else:
            lower = middle
    candidates = (lower, (lower + upper) / 2, upper)
    return min(candidates, key=lambda t: float(cross_entropy(logits / t, labels)))


def _slope(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """d(cross entropy)/dT up to the positive factor 1/T^2: the label's logit less the expected logit."""
    expected = ((logits / temperature).softmax(1) * logits).sum(1)
    actual = logits.gather(1, labels[:, None]).squeeze(1)
    return float((actual - expected).mean())


def _check_bins(bins: int) -> None:
    if bins < 1:
        raise ConfigError(f"bins={bins}: at least one bin is needed")


def _equal_width(confidence: Vector, bins: int) -> tuple[Vector, NDArray[np.int64]]:
    """(bins + 1,) edges and (N,) the bin (lower, upper] of every confidence."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return edges, np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)


def _size_bins(confidence: Vector, bin_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(N,) images by confidence, (B,) where each bin starts in that order, (B,) how many images it holds."""
    if bin_size < 1:
        raise ConfigError(f"bin_size={bin_size}: a bin holds at least one image")
    if confidence.size < bin_size:
        raise FaroutError(f"{confidence.size} images do not fill one bin of {bin_size}: use a smaller bin_size")
    starts = np.arange(confidence.size // bin_size) * bin_size
    return np.argsort(confidence, kind="stable"), starts, np.diff(starts, append=confidence.size)


def _by_size(confidence: Vector, correct: Vector, bin_size: int) -> ReliabilityCurve:
    order, starts, sizes = _size_bins(confidence, bin_size)
    ordered = confidence[order]
    return ReliabilityCurve(
        lower=ordered[starts],
        upper=ordered[starts + sizes - 1],
        confidence=np.add.reduceat(ordered, starts) / sizes,
        accuracy=np.add.reduceat(correct[order], starts) / sizes,
        count=sizes,
    )


def _checked(confidence: VectorLike, correct: VectorLike) -> tuple[Vector, Vector]:
    confidence, correct = finite_vector(confidence, "confidences"), finite_vector(correct, "correct flags")
    if confidence.size != correct.size:
        raise FaroutError(f"{confidence.size} confidences but {correct.size} correct flags: they must pair up")
    if confidence.min() < -_ROUNDING or confidence.max() > 1 + _ROUNDING:
        raise FaroutError("confidences must lie in [0, 1]: pass probabilities, not logits")
    if not np.isin(correct, (0, 1)).all():
        raise FaroutError("correct flags must be 0 or 1, or booleans")
    return np.clip(confidence, 0, 1), correct
