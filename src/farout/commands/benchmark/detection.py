"""Detection metrics against pytorch-ood's and torchmetrics'."""

from collections.abc import Iterator

import numpy as np
import torch

from farout.commands.benchmark.lines import AnyLine, Line, Place, Side, not_installed, require_close
from farout.commands.benchmark.metrics import make_scores
from farout.commands.benchmark.timing import Turn, in_turns
from farout.metrics import both_conventions, detection_metrics

PART, NAME = "metrics", "FPR95, AUROC, AUPR"


def lines(place: Place) -> Iterator[AnyLine]:
    """Both peers at both sizes."""
    for n in place.pick((1000, 10_000), (10_000, 1_000_000), (10_000, 1_000_000)):
        yield _pytorch_ood(place, n)
        yield _torchmetrics(place, n)


def _scale(n: int) -> str:
    return f"{n:,} ID and {n:,} OOD scores, float32"


def _pytorch_ood(place: Place, n: int) -> AnyLine:
    """Both conventions with trapezoids, which is nearest to what OODMetrics counts; it finds FPR with OOD positive."""
    try:
        from pytorch_ood.metrics import OODMetrics
    except ImportError:
        return not_installed(PART, f"{NAME} against pytorch-ood, {_scale(n)}", "pytorch-ood")
    id_scores, ood_scores = make_scores(n, np.dtype(np.float32))
    outlierness = torch.from_numpy(-np.concatenate([id_scores, ood_scores]))
    labels = torch.cat([torch.zeros(n, dtype=torch.int64), -torch.ones(n, dtype=torch.int64)])

    def ours() -> dict[str, float]:
        return both_conventions(id_scores, ood_scores, fpr_rule="first", aupr="trapezoid")

    def theirs() -> dict[str, float]:
        return OODMetrics().update(outlierness, labels).compute()

    mine, peer = ours(), theirs()
    names = {"auroc": "AUROC", "aupr_in": "AUPR-IN", "aupr_out": "AUPR-OUT", "fpr95_out": "FPR95TPR"}
    agreement = require_close(
        "AUROC, AUPR both ways, FPR95",
        [mine[name] for name in names],
        [float(peer[name]) for name in names.values()],
        1e-3,
    )
    seconds = in_turns({"ours": Turn(ours), "theirs": Turn(theirs)}, place.rounds)
    side = Side.of("pytorch-ood's OODMetrics", seconds["theirs"])
    return Line(PART, NAME, _scale(n), Side.of("both conventions", seconds["ours"]), side, agreement, place.rounds)


def _torchmetrics(place: Place, n: int) -> AnyLine:
    try:
        from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_roc
    except ImportError:
        return not_installed(PART, f"{NAME} against torchmetrics, {_scale(n)}", "torchmetrics")
    id_scores, ood_scores = make_scores(n, np.dtype(np.float32))
    joined = torch.from_numpy(np.concatenate([id_scores, ood_scores]))
    values = (joined - joined.min()) / (joined.max() - joined.min())  # others would go through a sigmoid
    target = torch.cat([torch.ones(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)])
    inside, outside = values[:n].numpy(), values[n:].numpy()

    def ours() -> dict[str, float]:
        return detection_metrics(inside, outside, fpr_rule="first")

    def theirs() -> dict[str, float]:
        false, true, _ = binary_roc(values, target)
        fpr = float(false[int((true >= 0.95).nonzero()[0, 0])])
        auroc, aupr = binary_auroc(values, target), binary_average_precision(values, target)
        return {"fpr95": fpr, "auroc": float(auroc), "aupr": float(aupr)}

    mine, peer = ours(), theirs()
    agreement = require_close("AUROC, AUPR, FPR95", list(mine.values()), [peer[name] for name in mine], 1e-3)
    seconds = in_turns({"ours": Turn(ours), "theirs": Turn(theirs)}, place.rounds)
    side = Side.of("torchmetrics, exact (no thresholds)", seconds["theirs"])
    return Line(PART, NAME, _scale(n), Side.of("ID positive", seconds["ours"]), side, agreement, place.rounds)
