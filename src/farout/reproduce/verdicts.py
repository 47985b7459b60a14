"""From measured records to verdicts on the papers' claims: reproduced, not reproduced, mixed, or not yet run.

A difference is that of the claim's two rows, averaged over seeds. Its 95 % interval is the best that the records allow:

1. the paired bootstrap over images, where an evaluation or a comparison of runs has recorded it;
2. of accuracies, the interval of two independent shares of so many images, which is wider than a paired one;
3. Student's t over the seeds' differences, from two seeds on;
4. none: a single seed whose scores per image are not at hand. Then there is no verdict, only a direction.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from farout.metrics.bootstrap import METRICS
from farout.papers.claims import EACH, MEAN, Claim, claims_of
from farout.report.records import Record
from farout.reproduce.trials import Case, Trial, attack_of, cases_of, trials_of, values_of

REPRODUCED, NOT_REPRODUCED, MIXED = "reproduced", "not reproduced", "mixed"
NO_INTERVAL, NOT_RUN = "no interval", "not yet run"
LEVEL = 0.95
OF_SHARES = ("accuracy", "linf 8")  # measures that count images
Z = 1.959963984540054  # of LEVEL under the normal distribution
PAIRED, SHARES, SEEDS = "paired bootstrap", "two independent shares", "t over seeds"
NONE = "no interval: one seed, and its scores per image are not at hand"


@dataclass(frozen=True)
class Found:
    """One comparison: what the first side has more, in points or degrees, with its interval and where that is from."""

    case: Case
    values: tuple[float, float]
    interval: tuple[float, float] | None
    how: str
    verdict: str
    aside: str = ""  # of claims over each set: which sets went how

    @property
    def difference(self) -> float:
        return self.values[0] - self.values[1]


@dataclass(frozen=True)
class Verdict:
    """A claim at one scale on one ID set, with every comparison that bears on it."""

    claim: Claim
    scale: str
    id_data: str
    found: tuple[Found, ...] = ()

    @property
    def word(self) -> str:
        """That of all comparisons which have one; where they disagree, mixed."""
        if not self.found:
            return NOT_RUN
        words = {found.verdict for found in self.found} - {NO_INTERVAL}
        return NO_INTERVAL if not words else words.pop() if len(words) == 1 else MIXED


def verdicts_of(records: Iterable[Record], paired: Sequence[Mapping[str, Any]] = ()) -> list[Verdict]:
    """One for every claim, each scale at which it can be tested, and each ID set that it was tested on there.

    `paired` are contents of results/paired-*.json. Where no records bear on a claim it is "not yet run" on CIFAR-10.
    """
    trials = trials_of(records)
    made = []
    for name in ("energy", "oe", "jem", "cider"):
        for claim in claims_of(name):
            for scale in claim.scales:
                cases = cases_of(claim, scale, trials) or {"cifar10": []}
                for id_data, own in sorted(cases.items()):
                    found = [_judged(claim, case, paired) for case in own]
                    made.append(Verdict(claim, scale, id_data, tuple(_once(found))))
    return made


def _once(found: Iterable[Found]) -> list[Found]:
    """Each comparison once: where it was made on all images and on fewer, the one with an interval, then on more."""
    best: dict[tuple[Any, ...], tuple[tuple[bool, float], Found]] = {}
    for each in found:
        protocol, ood_data, limit = each.case.first[0].conditions
        weight = (each.interval is not None, math.inf if limit is None else limit)
        key = (*each.case.runs, protocol, ood_data)
        if key not in best or weight > best[key][0]:
            best[key] = weight, each
    return [each for _, each in best.values()]


def _judged(claim: Claim, case: Case, paired: Sequence[Mapping[str, Any]]) -> Found:
    if claim.over == EACH:
        return _each(claim, case, paired)
    values = values_of(case, claim)
    assert values is not None  # trials without a value make no case
    interval, how = _interval(claim, case, values, MEAN, paired)
    return Found(case, (fmean(values[0]), fmean(values[1])), interval, how, judge(claim, interval))


def _each(claim: Claim, case: Case, paired: Sequence[Mapping[str, Any]]) -> Found:
    """The claim on every set on its own; all must be on the same side. The figures are those of the mean."""
    by_set = {}
    for ood in case.sets(MEAN):
        if (own := values_of(case, claim, ood)) is not None:
            by_set[ood] = _interval(claim, case, own, ood, paired)
    words = {ood: judge(claim, interval) for ood, (interval, _) in by_set.items()}
    kinds = set(words.values())
    word = kinds.pop() if len(kinds) == 1 else MIXED
    count = sum(each == REPRODUCED for each in words.values())
    others = ", ".join(ood for ood, each in words.items() if each != REPRODUCED)
    aside = f"{count} of {len(words)} sets" + (f"; not {others}" if others and word != NO_INTERVAL else "")
    values = values_of(case, claim)
    assert values is not None
    interval, _ = _interval(claim, case, values, MEAN, paired)
    how = next(iter(by_set.values()))[1]
    return Found(case, (fmean(values[0]), fmean(values[1])), interval, how, word, aside)


def judge(claim: Claim, interval: tuple[float, float] | None) -> str:
    """On which side of the claim's bound the whole interval lies; mixed where it lies on neither."""
    if interval is None:
        return NO_INTERVAL
    low, high = interval
    bound = -claim.margin if claim.direction == "kept" else 0.0
    if claim.direction == "less":
        low, high, bound = -high, -low, -bound
    return REPRODUCED if low > bound else NOT_REPRODUCED if high < bound else MIXED


def _interval(
    claim: Claim, case: Case, values: tuple[list[float], list[float]], ood: str, paired: Sequence[Mapping[str, Any]]
) -> tuple[tuple[float, float] | None, str]:
    """The best interval of a difference that there is, and what it is."""
    sets = [ood] if ood != MEAN else case.sets(MEAN if claim.over == EACH else claim.over)
    recorded = _within(claim, case, ood, sets) or _between(claim, case, ood, sets, paired)
    if recorded is not None:
        return recorded, PAIRED
    if claim.measure in OF_SHARES:
        return _of_shares(claim, case, values), SHARES
    return _over_seeds(values)


def _within(claim: Claim, case: Case, ood: str, sets: Sequence[str]) -> tuple[float, float] | None:
    """What the evaluation of one run has of its own two scores; None where it has nothing, or of other sets."""
    if claim.measure not in METRICS or len(case.runs) != 1:
        return None
    for trial in case.first:
        block = trial.entry.get("paired") or {}
        names = (case.kinds[0].score, case.kinds[1].score)
        mine = [d for d in block.get("differences", ()) if (d["first"], d["second"]) in (names, names[::-1])]
        measured = {d["ood"] for d in mine} - {MEAN}
        chosen = [d for d in mine if d["ood"] == ood]
        if chosen and (ood != MEAN or measured == set(sets)) and chosen[0][claim.measure] is not None:
            return _turned(chosen[0][claim.measure], chosen[0]["first"] != names[0])
    return None


def _between(
    claim: Claim, case: Case, ood: str, sets: Sequence[str], paired: Sequence[Mapping[str, Any]]
) -> tuple[float, float] | None:
    """What a comparison of runs has recorded of these very runs and scores."""
    of_network = claim.measure in ("accuracy", "ece", "rms")  # whatever the score
    if not of_network and claim.measure not in METRICS:
        return None
    name = "id" if claim.measure in ("accuracy", "ece") else ood
    sides = zip(case.kinds, (case.first, case.second), strict=True)
    wanted = tuple(_side([trial.run for trial in side], kind.score, of_network) for kind, side in sides)
    for record in paired:
        if (record["protocol"]["name"], record["ood_data"], record["max_eval_images"]) != case.first[0].conditions:
            continue
        known = [_side(side["runs"], side["score"], of_network) for side in record["sides"]]
        for found in record["differences"]:
            ends = (known[found["first"]], known[found["second"]])
            right = found["ood"] == name and (name != MEAN or set(found["over"]) == set(sets))
            if right and ends in (wanted, wanted[::-1]) and found.get(claim.measure) is not None:
                return _turned(found[claim.measure], ends != wanted)
    return None


def _side(runs: Sequence[str], score: str, of_network: bool) -> tuple[tuple[str, ...], str]:
    """What a side is known by; accuracy and calibration have no score."""
    return tuple(sorted(runs)), "" if of_network else score


def _turned(figures: Sequence[float], other_way: bool) -> tuple[float, float]:
    """[difference, low, high] of fractions as an interval in points, of the other difference where it is that."""
    _, low, high = figures
    return (-100 * high, -100 * low) if other_way else (100 * low, 100 * high)


def _of_shares(claim: Claim, case: Case, values: tuple[list[float], list[float]]) -> tuple[float, float]:
    """Of two shares of so many images each (Newcombe, 1998, method 10), as if the images were others.

    That is on the wide side, and seeds do not narrow it: their images are the same.
    """
    first, second = fmean(values[0]) / 100, fmean(values[1]) / 100
    low_1, high_1 = _wilson(first, _images(claim, case.first[0], case))
    low_2, high_2 = _wilson(second, _images(claim, case.second[0], case))
    below = math.hypot(first - low_1, high_2 - second)
    above = math.hypot(high_1 - first, second - low_2)
    return 100 * (first - second - below), 100 * (first - second + above)


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a share of n images."""
    centre, spread = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return (centre - spread) / (1 + Z**2 / n), (centre + spread) / (1 + Z**2 / n)


def _images(claim: Claim, trial: Trial, case: Case) -> int:
    if claim.measure == "accuracy":
        return int(trial.entry["id"]["n"])
    attacked = attack_of(trial, claim.measure, case)
    return attacked[1] if attacked else 1


def _over_seeds(values: tuple[list[float], list[float]]) -> tuple[tuple[float, float] | None, str]:
    """Student's t over the seeds' differences; where one side is a single network, against that one."""
    first, second = values
    paired_seeds = len(first) == len(second)
    differences = [a - b for a, b in zip(first, second, strict=True)] if paired_seeds else _against_one(first, second)
    if len(differences) < 2:
        return None, NONE
    half = float(stdtrit(len(differences) - 1, (1 + LEVEL) / 2)) * stdev(differences) / math.sqrt(len(differences))
    centre = fmean(differences)
    return (centre - half, centre + half), f"{SEEDS} ({len(differences)})"


def _against_one(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """The seeds' differences from the other side's mean: a network of others is one."""
    if len(second) == 1:
        return [value - second[0] for value in first]
    return [first[0] - value for value in second] if len(first) == 1 else []
