"""The parts of a table: cells with our figure of every seed beside the paper's, in percent or in degrees."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from farout.papers import METRICS, Paper, ReportedValue, RowKind
from farout.report.records import EvaluatedRun

MEASURED, MISSING, NOT_RUN, NO_MEAN = "measured", "missing", "not run", "no mean"
NO_CLASSIFIER = "no classifier"  # trained, that is: nothing to count an accuracy of
INAPPLICABLE = "-"  # there is no such thing, of samples of a network that makes none
REPORTED = "reported"  # by the paper, of a row that nothing here is the counterpart of


PROBES = ("linear_probe", "nearest_class")  # accuracies of networks whose classifier was never trained


@dataclass(frozen=True)
class Measures:
    """What a table shows: measures of each OOD set, measures of ID alone, their unit, and its parts of a record's 1.

    `heading` stands above the measures of ID, which come first where `id_first`; `titles` are of measures that only
    this table has.
    """

    ood: tuple[str, ...]
    id: tuple[str, ...]
    unit: str
    scale: float
    heading: str = "In-distribution (%)"
    id_first: bool = False
    titles: Mapping[str, str] = field(default_factory=dict)


DETECTION = Measures(METRICS, ("accuracy", "ece"), "percent", 100.0)
ANGLES = Measures(
    ("separability",),
    ("dispersion", "compactness"),
    "degrees",
    1.0,
    "Classes of ID (degrees; dispersion better large, compactness better small)",
    id_first=True,
)


@dataclass(frozen=True)
class Cell:
    """One figure: ours per seed (none where it was not measured: `status` says why) and the paper's."""

    seeds: Mapping[int, float] = field(default_factory=dict)
    status: str = NOT_RUN
    paper: ReportedValue = field(default_factory=ReportedValue)
    comparable: bool = False  # the set, the positive class and the base rate are the paper's own

    @property
    def mean(self) -> float | None:
        return fmean(self.seeds.values()) if self.seeds else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over the seeds; None below two."""
        return stdev(self.seeds.values()) if len(self.seeds) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's, in points of the unit; None unless the two can be compared."""
        if not self.comparable or self.mean is None or self.paper.value is None:
            return None
        return self.mean - self.paper.value


@dataclass(frozen=True)
class OODSet:
    """A line of the table: an OOD set, what it stands in for, and how many of its images were used."""

    ood: str
    title: str
    stand_in_for: str | None = None
    vote: str | None = None
    n_ood: int | None = None
    n_available: int | None = None
    base_rate: float | None = None
    duplicates: int = 0
    reason: str | None = None  # why it is missing

    @property
    def label(self) -> str:
        return f"{self.title} †" if self.stand_in_for else self.title


@dataclass(frozen=True)
class TableRow:
    """One method's results: `cells[ood, metric]` ("mean" is an ood) and `id_cells[metric]`."""

    kind: RowKind
    runs: Sequence[EvaluatedRun]
    cells: Mapping[tuple[str, str], Cell]
    id_cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Control:
    """ID against itself, altered: AUROC per row in percent, and whether any seed is far from chance."""

    control: str
    auroc: Mapping[str, float]
    warning: Mapping[str, bool]


@dataclass(frozen=True)
class Table:
    """What the renderers need; the mean is over the sets `mean_over`, which count as `votes` votes."""

    paper: Paper
    id_data: str
    protocol: Mapping[str, Any]
    rows: Sequence[TableRow]
    sets: Sequence[OODSet]
    mean_over: Sequence[str]
    votes: int
    controls: Sequence[Control]
    caption: Sequence[str]
    notes: Sequence[str]
    measures: Measures = DETECTION
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)  # OOD sets that have a mean of their own
    reported: Sequence[TableRow] = ()  # rows without a run of ours: figures that the paper or its successors report


def mean_of_votes(rows: Sequence[Mapping[str, Any]], metric: str, any_rate: bool = False) -> float | None:
    """Mean over votes of one metric: rows that share a vote are averaged first, and count once.

    None where there is no row, and for AUPR where the base rates differ (AUPR follows the base rate, so
    such a mean would mean nothing) unless `any_rate`, which is for means that a paper takes so.
    """
    if not rows or (metric == "aupr" and not any_rate and not same_rate(rows)):
        return None
    votes: dict[str, list[float]] = {}
    for row in rows:
        votes.setdefault(row.get("vote") or row["ood"], []).append(row[metric])
    return fmean(fmean(values) for values in votes.values())


def same_rate(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all rows have the same share of positives."""
    return all(math.isclose(row["base_rate"], rows[0]["base_rate"], abs_tol=1e-9) for row in rows)
