"""What the papers claim in words, as data: two rows, a measure, and which way it goes; what would show each claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

import yaml

from farout.papers import CERTAINTIES, METRICS, Paper, RowKind, load

SCALES = {  # at which a claim may be tested, in the order of tables
    "full": "full",
    "medium": "medium",
    "small": "small",
    "from_others": "small, from a network that others trained",
    "from_trained": "small from one trained network",
    "demo": "demo",
    "literature": "networks of the literature",
}
DIRECTIONS = {"less": "lower", "more": "higher", "kept": "not lower by more than"}
ANGLES = ("dispersion", "compactness", "separability")
MEASURES = (*METRICS, "accuracy", "ece", "rms", "linf 8", *ANGLES)
MEAN, EACH = "mean", "each"


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, and what would show it.

    Attributes:
        says: the claim in plain words; `table`, `certainty` and `source`: where the paper has it, and how sure we are.
        measure: one of MEASURES; `first` and `second`: the rows it is compared of. Of several second rows, the first
            one that was run on an ID set counts there.
        direction: how the first row's measure stands to the second's; "kept": it may be lower by up to `margin` points.
        over: "mean" is the mean over the OOD sets that both have, "each" every one of them, else names of official
            sets (or their stand-ins), whose mean counts; in the demonstration, that of its own sets.
        protocols: whose evaluations count, the preferred first; the plain one where there is no other (the demo).
        scales: keys of SCALES.
        reported: (first, second) in percent or degrees as the paper prints them, by ID set, where known.
    """

    key: str
    paper: str
    says: str
    table: str
    certainty: str
    source: tuple[str, ...]
    measure: str
    first: RowKind
    second: tuple[RowKind, ...]
    direction: str
    margin: float
    over: str | tuple[str, ...]
    protocols: tuple[str, ...]
    scales: tuple[str, ...]
    reported: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value, allowed in (
            (self.certainty, CERTAINTIES),
            (self.measure, MEASURES),
            (self.direction, DIRECTIONS),
            *((scale, SCALES) for scale in self.scales),
        ):
            if value not in allowed:
                raise ValueError(f"claim {self.key}: {value!r} is none of {', '.join(allowed)}")

    @property
    def unit(self) -> str:
        return "°" if self.measure in ANGLES else "points"


@cache
def claims_of(name: str) -> tuple[Claim, ...]:
    """The claims of a paper's file, in its order; raises ConfigError for an unknown paper."""
    paper = load(name)
    raw = yaml.safe_load(files("farout.papers").joinpath(f"{name}.yaml").read_text("utf-8"))
    return tuple(_claim(paper, key, facts) for key, facts in raw.get("claims", {}).items())


def _claim(paper: Paper, key: str, facts: Mapping[str, Any]) -> Claim:
    kinds = paper.extra_tables[facts["table"]].kinds if "table" in facts else paper.kinds
    seconds = facts["second"] if isinstance(facts["second"], list) else [facts["second"]]
    over = facts.get("over", MEAN)
    over = tuple(over) if isinstance(over, list) else over
    reported = {name: (first, second) for name, (first, second) in facts.get("reported", {}).items()}
    for id_data in paper.results:
        known = [found for second in seconds if (found := _reported(paper, id_data, facts, second, over)) is not None]
        if known:
            reported.setdefault(id_data, known[0])
    return Claim(
        key=key,
        paper=paper.name,
        says=facts["says"],
        table=facts["where"]["table"],
        certainty=facts["where"]["certainty"],
        source=tuple(facts["where"]["source"]),
        measure=facts["measure"],
        first=kinds[facts["first"]],
        second=tuple(kinds[second] for second in seconds),
        direction=facts["direction"],
        margin=float(facts.get("margin", 0.0)),
        over=over,
        protocols=(*facts.get("protocols", [paper.protocol]), "plain"),
        scales=tuple(facts["scales"]),
        reported=reported,
    )


def _reported(
    paper: Paper, id_data: str, facts: Mapping[str, Any], second: str, over: str | Sequence[str]
) -> tuple[float, float] | None:
    """What the paper's own tables have of both rows."""
    measure = facts["measure"]

    def of(row: str) -> float | None:
        if "table" in facts:
            return paper.extra_tables[facts["table"]].value(id_data, row, measure).value
        if measure == "accuracy":
            error = paper.error(id_data, row).value
            return None if error is None else round(100 - error, 2)
        if measure not in METRICS:
            return None
        sets = [MEAN] if isinstance(over, str) else over
        values = [paper.value(id_data, row, ood, measure).value for ood in sets]
        return fmean(v for v in values if v is not None) if None not in values else None

    first, other = of(facts["first"]), of(second)
    return None if first is None or other is None else (first, other)
