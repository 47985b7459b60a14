"""Does a confidence of 0.8 mean right in 80 % of the cases?

ECE is that of Guo et al. (2017); the other measures and the search for the temperature are those of Outlier
Exposure (hendrycks/outlier-exposure).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from farout.errors import ConfigError, FaroutError
from farout.metrics.vectors import Vector, VectorLike, finite_vector

_NORMS = ("rms", "mad", "max")
_ROUNDING = 1e-6  # a float32 softmax may exceed 1 by this much


def expected_calibration_error(confidence: VectorLike, correct: VectorLike, bins: int = 15) -> float:
    """Mean |accuracy - confidence| over equally wide bins (lower, upper], weighted by their share of images.

    Args:
        confidence: (N,) probabilities of the predicted class, in [0, 1]; 0 itself counts into the first bin.
        correct: (N,) bool or 0/1, whether the prediction was right.

    Raises FaroutError for empty, NaN or mismatched arguments, or for confidences that are no probabilities.
    """
    if bins < 1:
        raise ConfigError(f"bins={bins}: at least one bin is needed")
    confidence, correct = _checked(confidence, correct)
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
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
    if bin_size < 1:
        raise ConfigError(f"bin_size={bin_size}: a bin holds at least one image")
    confidence, correct = _checked(confidence, correct)
    if confidence.size < bin_size:
        raise FaroutError(f"{confidence.size} images do not fill one bin of {bin_size}: use a smaller bin_size")
    order = np.argsort(confidence, kind="stable")
    starts = np.arange(confidence.size // bin_size) * bin_size
    sizes = np.diff(starts, append=confidence.size)
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
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or len(logits) == 0:
        raise FaroutError(
            f"temperature tuning needs logits (N, C) and labels (N,), not {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}"
        )
    logits, labels = logits.detach().double(), labels.long()
    while upper - lower > width:
        middle = (lower + upper) / 2
        if _slope(logits, labels, middle) > 0:
            upper = middle
        else:
            lower = middle
    candidates = (lower, (lower + upper) / 2, upper)
    return min(candidates, key=lambda t: float(F.cross_entropy(logits / t, labels)))


def _slope(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """d(cross entropy)/dT up to the positive factor 1/T^2: the label's logit less the expected logit."""
    expected = (torch.softmax(logits / temperature, 1) * logits).sum(1)
    actual = logits.gather(1, labels[:, None]).squeeze(1)
    return float((actual - expected).mean())


def _checked(confidence: VectorLike, correct: VectorLike) -> tuple[Vector, Vector]:
    confidence, correct = finite_vector(confidence, "confidences"), finite_vector(correct, "correct flags")
    if confidence.size != correct.size:
        raise FaroutError(f"{confidence.size} confidences but {correct.size} correct flags: they must pair up")
    if confidence.min() < -_ROUNDING or confidence.max() > 1 + _ROUNDING:
        raise FaroutError("confidences must lie in [0, 1]: pass probabilities, not logits")
    if not np.isin(correct, (0, 1)).all():
        raise FaroutError("correct flags must be 0 or 1, or booleans")
    return np.clip(confidence, 0, 1), correct
