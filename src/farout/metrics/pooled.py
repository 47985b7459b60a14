"""Calibration over ID and OOD images together, where every OOD prediction is wrong (Hendrycks et al., ICLR 2019)."""

import numpy as np

from farout.metrics.calibration import calibration_error, soft_f1
from farout.metrics.protocol import Protocol, ood_draws
from farout.metrics.vectors import VectorLike, finite_vector

BIN = 100  # images; below, the binned errors are not defined


def calibration_measures(confidence: VectorLike, correct: VectorLike) -> dict[str, float | None]:
    """RMS and MAD calibration error over bins of 100 images, as the official code has them, and soft F1.

    The two errors are None for fewer than 100 images.
    """
    enough = len(confidence) >= BIN
    binned = {
        norm: calibration_error(confidence, correct, bin_size=BIN, norm=norm) if enough else None
        for norm in ("rms", "mad")
    }
    return {**binned, "soft_f1": soft_f1(confidence, correct)}


def pooled_calibration(
    protocol: Protocol, id_confidence: VectorLike, id_correct: VectorLike, ood_confidence: VectorLike, ood: str
) -> dict[str, float | None]:
    """`calibration_measures` of the ID images together with a draw of OOD images, whose every prediction is wrong.

    Mean over the protocol's redraws, which see the same images as the detection metrics of the set named `ood`.
    """
    confidence = finite_vector(id_confidence, "the ID confidences")
    right = finite_vector(id_correct, "correct flags")
    others = finite_vector(ood_confidence, f"the confidences on {ood}")
    draws = []
    for rows in ood_draws(protocol, confidence.size, others.size, ood):
        chosen = others[rows]
        flags = np.concatenate([right, np.zeros(chosen.size)])
        draws.append(calibration_measures(np.concatenate([confidence, chosen]), flags))
    found: dict[str, float | None] = {}
    for key in draws[0]:
        values = [draw[key] for draw in draws]
        found[key] = None if values[0] is None else float(np.mean([value for value in values if value is not None]))
    return found
