"""The papers' figures beside the runs on the page: those of methods and data that it has runs of."""

from collections.abc import Collection, Iterator
from typing import Any

from farout import papers
from farout.papers import Paper, RowKind


def references(pairs: Collection[tuple[str, str]]) -> list[dict[str, Any]]:
    """Rows of the papers' tables for (method, ID set) pairs: mean FPR95 and AUROC, and FPR95 by OOD set, in percent.

    Weights of others (`imported`) are compared with the rows of cross-entropy. Rows without a figure are left out.
    """
    wanted = {("ce" if method == "imported" else method, data) for method, data in pairs}
    found = []
    for name in papers.names():
        paper = papers.load(name)
        for data in sorted({data for _, data in wanted} & paper.results.keys()):
            kinds = [paper.kinds[key].on(data) for key in paper.results[data] if key in paper.kinds]
            found += [_row(paper, kind, data) for kind in kinds if (kind.method, data) in wanted]
    return [row for row in found if row["sets"] or any(value is not None for value in row["mean"])]


def _row(paper: Paper, kind: RowKind, data: str) -> dict[str, Any]:
    mean = [paper.value(data, kind.key, "mean", metric).value for metric in ("fpr95", "auroc")]
    return {
        "paper": paper.reference,
        "label": kind.label,
        "method": kind.method,
        "data": data,
        "score": kind.score,
        "protocol": paper.protocol,
        "mean": mean,
        "sets": dict(_by_set(paper, kind, data)),
    }


def _by_set(paper: Paper, kind: RowKind, data: str) -> Iterator[tuple[str, list[float | None]]]:
    for ood in paper.sets.get(data, ()):
        pair = [paper.value(data, kind.key, ood, metric).value for metric in ("fpr95", "auroc")]
        if any(value is not None for value in pair):
            yield ood, pair
