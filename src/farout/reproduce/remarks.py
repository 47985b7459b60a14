"""What the demonstration's table shows of the paper, and what not: read off its own figures."""

from typing import NamedTuple

from farout.papers import Paper
from farout.report.tables.cells import Table

STEPS = (("energy", "softmax"), ("energy_ft", "energy"), ("energy_ft", "oe"))  # the paper's: the first is better
REFERENCE = "cifar10"  # where the paper says so
COMMAND = "python scripts/reproduce.py --scale small"  # the cheapest that does so here


class Step(NamedTuple):
    """Two rows, by mean FPR95 in percent here and in the paper."""

    names: tuple[str, str]
    here: tuple[float, float]
    paper: tuple[float, float]

    @property
    def agrees(self) -> bool:
        """Whether the same row is ahead, by what is printed."""
        ours, theirs = ([round(value, 1) for value in pair] for pair in (self.here, self.paper))
        return (ours[0] < ours[1]) == (theirs[0] < theirs[1]) and ours[0] != ours[1]

    def __str__(self) -> str:
        ours, theirs = (f"{pair[0]:.1f} and {pair[1]:.1f}" for pair in (self.here, self.paper))
        return f"{self.names[0]} before {self.names[1]} ({ours}; paper {theirs})"


def demo_remarks(table: Table) -> list[str]:
    """Two lines for under the table; none where it lacks the rows that they speak of."""
    steps = _steps(table)
    if not steps:
        return []
    shown, others = ("; ".join(str(step) for step in steps if step.agrees == kind) for kind in (True, False))
    missing = others or "that this is so on photographs"
    return [
        f"What this shows, by mean FPR95 beside the paper's on CIFAR-10: {shown or 'no step of its table'}.",
        f"What it does not show: {missing}. That takes CIFAR-10: {COMMAND}.",
    ]


def _steps(table: Table) -> list[Step]:
    here, paper = _means(table), table.paper
    known = [pair for pair in STEPS if set(pair) <= here.keys() and all(_reported(paper, key) for key in pair)]
    return [
        Step(
            (paper.kinds[first].label, paper.kinds[second].label),
            (here[first], here[second]),
            (_reported(paper, first), _reported(paper, second)),
        )
        for first, second in known
    ]


def _means(table: Table) -> dict[str, float]:
    means = {row.kind.key: row.cells["mean", "fpr95"].mean for row in table.rows if ("mean", "fpr95") in row.cells}
    return {key: mean for key, mean in means.items() if mean is not None}


def _reported(paper: Paper, row: str) -> float:
    return paper.value(REFERENCE, row, "mean", "fpr95").value or 0.0
