"""FPR95, AUROC and AUPR: how well a score separates in-distribution (ID) from out-of-distribution (OOD) images.

The definitions are those of the code that Outlier Exposure and Energy share (hendrycks/outlier-exposure and
wetliu/energy_ood, `display_results.py`); everything follows from one sort of each class (`steps`).
"""

import numpy as np

from farout.errors import ConfigError
from farout.metrics.steps import Steps, sort_scores
from farout.metrics.vectors import Vector, VectorLike

POSITIVES = ("id", "ood")
FPR_RULES = ("nearest", "first")
AUPRS = ("average_precision", "trapezoid")
NAMES = ("ID scores", "OOD scores")


def detection_metrics(
    id_scores: VectorLike,
    ood_scores: VectorLike,
    positive: str = "id",
    recall: float = 0.95,
    fpr_rule: str = "nearest",
    names: tuple[str, str] = NAMES,
    aupr: str = "average_precision",
) -> dict[str, float]:
    """FPR at a recall, AUROC and AUPR of scores that are larger for ID images, as fractions in [0, 1].

    Args:
        id_scores, ood_scores: (N_id,) and (N_ood,); NumPy arrays, tensors or lists. Ties are treated exactly, so
            that constant scores have AUROC 1/2.
        positive: "id" (Energy): FPR is the share of OOD accepted when `recall` of ID is accepted, and AUPR
            counts ID as positive; "ood" (Outlier Exposure): FPR is the share of ID flagged when `recall` of
            OOD is flagged. AUROC does not depend on it.
        recall: the recall at which the FPR is read.
        fpr_rule: "nearest" is the official rule, see `_nearest`; "first" the usual one, see `_first`.
        names: what an error message calls the two arguments.
        aupr: "average_precision" sums precision over the steps of recall; "trapezoid" joins the points of the
            precision-recall curve by straight lines, which is optimistic but widely reported.

    Returns {"fpr95", "auroc", "aupr"}; the first key keeps its name at any other `recall`.

    Raises FaroutError for empty, NaN or infinite scores, ConfigError for an unknown convention or rule.
    """
    check_convention(positive, recall, fpr_rule, aupr)
    steps = sort_scores(id_scores, ood_scores, names).steps(positive)
    return measure(steps, recall, fpr_rule, aupr)


def both_conventions(
    id_scores: VectorLike,
    ood_scores: VectorLike,
    recall: float = 0.95,
    fpr_rule: str = "nearest",
    names: tuple[str, str] = NAMES,
    aupr: str = "average_precision",
) -> dict[str, float]:
    """Every number that depends on who is positive, both ways, from one sort.

    Returns {"auroc", "fpr95_in", "aupr_in", "fpr95_out", "aupr_out"}: `_in` with ID positive, `_out` with OOD
    positive. Arguments and errors are those of `detection_metrics`.
    """
    check_convention("id", recall, fpr_rule, aupr)
    scores = sort_scores(id_scores, ood_scores, names)
    found: dict[str, float] = {}
    for suffix, positive in (("in", "id"), ("out", "ood")):
        measured = measure(scores.steps(positive), recall, fpr_rule, aupr)
        found |= {"auroc": measured["auroc"]}
        found |= {f"{key}_{suffix}": measured[key] for key in ("fpr95", "aupr")}
    return found


def check_convention(positive: str, recall: float, fpr_rule: str, aupr: str, prefix: str = "") -> None:
    """Raises ConfigError, with the option's name after `prefix`, for what no metric here understands."""
    for name, value, allowed in (
        ("positive", positive, POSITIVES),
        ("fpr_rule", fpr_rule, FPR_RULES),
        ("aupr", aupr, AUPRS),
    ):
        if value not in allowed:
            raise ConfigError(f"{prefix}{name}={value}: choose one of {', '.join(allowed)}")
    if not 0 < recall <= 1:
        raise ConfigError(f"{prefix}recall={recall}: it must be above 0 and at most 1")


def measure(steps: Steps, recall: float, fpr_rule: str, aupr: str) -> dict[str, float]:
    """The three metrics of checked, counted scores."""
    false_positives = _nearest(steps, recall) if fpr_rule == "nearest" else _first(steps, recall)
    return {
        "fpr95": false_positives / steps.negatives,
        "auroc": _auroc(steps),
        "aupr": _average_precision(steps) if aupr == "average_precision" else _trapezoid(steps),
    }


def _nearest(steps: Steps, recall: float) -> int:
    """False positives at the threshold whose recall is nearest to `recall`, possibly below it.

    Thresholds under the one that first reaches full recall do not count. Among equally near ones the lowest
    wins: on a plateau of recall that is the largest number of false positives, all negatives above the next
    positive. Thresholds above every positive (recall 0) exist only where a negative lies there.
    """
    reached = np.concatenate([[0], steps.reached])
    false_positives = np.concatenate([steps.above, steps.upto[-1:]])
    if steps.above[0] == 0:
        reached, false_positives = reached[1:], false_positives[1:]
    distance = np.abs(reached / steps.positives - recall)
    return int(false_positives[::-1][np.argmin(distance[::-1])])


def _first(steps: Steps, recall: float) -> int:
    """False positives at the highest threshold that reaches `recall`."""
    return int(steps.upto[np.argmax(steps.reached / steps.positives >= recall)])


def _auroc(steps: Steps) -> float:
    """Share of (positive, negative) pairs in the right order; a tie counts half. Exact until the division."""
    twice = int(np.sum(steps.gained * (2 * steps.negatives - steps.above - steps.upto)))
    return twice / (2 * steps.positives * steps.negatives)


def _average_precision(steps: Steps) -> float:
    """Precision at every threshold, weighted by the recall that the threshold adds."""
    return float(np.sum(steps.gained * _precision(steps.reached, steps.upto)) / steps.positives)


def _trapezoid(steps: Steps) -> float:
    """Area under straight lines between the curve's points, from recall 0 and precision 1 where no negative leads.

    Before a step gains its positives, the curve stands at the precision over everything above that step.
    """
    before = _precision(steps.reached - steps.gained, steps.above)
    after = _precision(steps.reached, steps.upto)
    return float(np.sum(steps.gained * (before + after)) / (2 * steps.positives))


def _precision(true_positives: np.ndarray, false_positives: np.ndarray) -> Vector:
    """tp / (tp + fp), and 1 where nothing is accepted."""
    accepted = true_positives + false_positives
    return np.where(accepted == 0, 1.0, true_positives / np.maximum(accepted, 1))
