"""Which evaluations bear on a claim: chosen by what the records say of themselves, not by their file names."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from farout.papers import METRICS, RowKind
from farout.papers.claims import ANGLES, EACH, MEAN, Claim
from farout.report.records import Record, flatten, name_of, size_of, trunk_of, variant_of
from farout.report.tables.cells import mean_of_votes

LITERATURE, FROM_OTHERS, FROM_TRAINED = "literature", "from_others", "from_trained"
FINE_TUNED = ("energy", "oe")  # methods that begin with a trained classifier; with others that is another experiment
Value = float | None


@dataclass(frozen=True)
class Trial:
    """One run under one protocol on one list of OOD sets: a record, and one of its evaluations."""

    record: Record = field(repr=False)
    entry: Mapping[str, Any] = field(repr=False)

    @property
    def run(self) -> str:
        return str(self.record["run"])

    @property
    def code(self) -> str:
        """What in a folder's name stands for the settings, whatever the seed; of a network of others all of it."""
        return self.run if self.imported else self.run.split("-")[-2]

    @property
    def identity(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.record["identity"]
        return found

    @property
    def seed(self) -> int:
        return int(self.identity.get("seed") or 0)

    @property
    def parent(self) -> str | None:
        return self.identity.get("parent")

    @property
    def imported(self) -> bool:
        return bool(name_of(self.identity.get("method")) == "imported")

    @property
    def outliers_of_others(self) -> bool:
        """Whether others trained it with outliers: as the import was told, else by its name, file and note."""
        facts = self.record.get("trained") or {}
        if self.imported and facts.get("outliers") is not None:
            return str(facts["outliers"]).lower() != "none"
        told = " ".join(str(fact) for fact in (self.run, facts.get("file"), facts.get("note")))
        return self.imported and re.search(r"\boe(cc)?\b|oecc_|outlier", told, flags=re.IGNORECASE) is not None

    @property
    def from_others(self) -> bool:
        """Whether training started from a network that was named, not trained for it (`init_from=RUN`)."""
        return str(self.parent).startswith("weights-")

    @property
    def scale(self) -> str:
        """A key of farout.papers.claims.SCALES, or whatever else the record says."""
        if self.imported:
            return LITERATURE
        stated = str(self.identity.get("scale") or "not stated")
        if self.parent is not None and name_of(self.identity.get("method")) not in FINE_TUNED:
            return FROM_TRAINED if stated == "small" else f"{stated}, from a trained network"
        return FROM_OTHERS if self.from_others else stated

    @property
    def id_data(self) -> str:
        return str(name_of(self.identity["id_data"]))

    @property
    def network(self) -> tuple[Any, ...]:
        """What both sides of a comparison share: the trunk and its size, whatever its head or norm."""
        backbone = self.identity["backbone"]
        return trunk_of(backbone), size_of(backbone), self.id_data

    @property
    def conditions(self) -> tuple[Any, ...]:
        """How it was evaluated: comparable only with the same."""
        limit = self.entry.get("max_eval_images")
        return self.entry["protocol"]["name"], self.entry.get("ood_data"), limit

    def under(self, protocol: str) -> bool:
        """Whether it was evaluated so; the plain protocol speaks for runs alone that no paper's was used on."""
        names = {entry["protocol"]["name"] for entry in self.record["evaluations"]}
        return self.entry["protocol"]["name"] == protocol and (protocol != "plain" or names == {"plain"})

    @property
    def setting(self) -> tuple[Any, ...]:
        """All of the identity but the seed: trials that differ in nothing else are seeds of one setting."""
        leaves = sorted((key, str(value)) for key, value in flatten(self.identity) if key != "seed")
        return (*leaves, self.run if self.imported else None, *self.conditions)

    def is_a(self, kind: RowKind) -> bool:
        """Whether it belongs to a row of a paper; networks of others count as cross-entropy's, or as JEM's.

        Those that others trained with outliers belong to none: what they are is known from words alone.
        """
        trained, variant = "no_accuracy" not in self.entry["id"], variant_of(self.identity["backbone"])
        method = name_of(self.identity.get("method"))
        if method == "imported" and trained and not self.outliers_of_others:
            method = "jem" if variant == "_jem" else "ce"
        fitting = kind.variant in (None, variant) and kind.fine_tuned in (None, self.parent is not None)
        return bool(method == kind.method and fitting)

    def child_of(self, other: "Trial") -> bool:
        """Whether training started from the other's setting."""
        if not self.from_others:
            return str(self.parent) in other.run.split("-")
        weights = (other.entry.get("depends_on") or {}).get("weights")
        known = weights is None or str(self.parent) == f"weights-{weights[:12]}"
        normalised = all(
            self.identity["transform"].get(k) == other.identity["transform"].get(k) for k in ("mean", "std")
        )
        return (other.imported or weights is not None) and known and normalised


@dataclass(frozen=True)
class Case:
    """The two sides of a comparison, each the seeds of one setting, and the row of each."""

    first: tuple[Trial, ...]
    second: tuple[Trial, ...]
    kinds: tuple[RowKind, RowKind]

    @property
    def trials(self) -> tuple[Trial, ...]:
        return (*self.first, *self.second)

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(trial.run for trial in self.trials))

    @property
    def seeds(self) -> list[int]:
        return sorted({trial.seed for trial in self.first})

    def sets(self, over: str | tuple[str, ...]) -> list[str]:
        """The OOD sets that every trial has under its row's score, of those wanted: by name or as stand-ins.

        The demonstration has none of the papers' sets by either name: there all of its own count.
        """
        scores = [kind.score for kind, side in zip(self.kinds, (self.first, self.second), strict=True) for _ in side]
        has: list[dict[str, Any]] = []
        for trial, score in zip(self.trials, scores, strict=True):
            has.append({row["ood"]: row for row in trial.entry["rows"] if row["score"] == score})
        common = [ood for ood in has[0] if all(ood in rows for rows in has)]
        if isinstance(over, str) or self.first[0].scale == "demo":
            return common
        return [ood for ood in common if ood in over or has[0][ood].get("stand_in_for") in over]


def trials_of(records: Iterable[Record]) -> list[Trial]:
    """Every evaluation of every record, the best of a run last: by date, with paired intervals, with many scores."""
    found = [Trial(record, entry) for record in records for entry in record["evaluations"]]

    def weight(trial: Trial) -> tuple[Any, ...]:
        scores = {row["score"] for row in trial.entry["rows"]}
        return "paired" in trial.entry, str(trial.entry.get("date")), len(scores)

    return sorted(found, key=weight)


def largest(trials: Sequence[Trial]) -> list[Trial]:
    """Without those on at most so many images of each set where the same run was evaluated on all of them as well.

    Scores that take long are evaluated on fewer images, beside others that were evaluated on all.
    """
    whole = {(trial.run, *trial.conditions[:-1]) for trial in trials if trial.conditions[-1] is None}
    return [t for t in trials if t.conditions[-1] is None or (t.run, *t.conditions[:-1]) not in whole]


def cases_of(claim: Claim, scale: str, trials: Sequence[Trial]) -> dict[str, list[Case]]:
    """The comparisons that bear on a claim at a scale, by ID set; of several second rows the first one run on that."""
    all_found: dict[str, list[Case]] = {}
    for second in claim.second:
        found: dict[str, list[Case]] = {}
        for protocol in claim.protocols:
            mine = [trial for trial in trials if trial.under(protocol)]
            for case in _cases(claim, (claim.first, second), scale, mine):
                found.setdefault(case.first[0].id_data, []).append(case)
            if found:
                break
        all_found = found | all_found
    return all_found


def _cases(claim: Claim, rows: tuple[RowKind, RowKind], scale: str, trials: Sequence[Trial]) -> Iterator[Case]:
    for first in _settings(trials, rows[0], claim.measure):
        if first[0].scale != scale:
            continue
        kinds = (rows[0].on(first[0].id_data), rows[1].on(first[0].id_data))
        others = [each for each in _settings(trials, rows[1], claim.measure) if _compare(first[0], each[0], rows)]
        for second in _as_precise(first[0], others):
            case = Case(_with(first, second), _with(second, first), kinds)
            if values_of(case, claim) is not None:
                yield case


def _settings(trials: Sequence[Trial], kind: RowKind, measure: str) -> list[tuple[Trial, ...]]:
    """The trials of a row, each setting's seeds together; only those that have its score, where it is one."""
    found: dict[tuple[Any, ...], dict[int, Trial]] = {}
    for trial in trials:
        score = kind.on(trial.id_data).score
        scored = measure not in METRICS or any(row["score"] == score for row in trial.entry["rows"])
        if trial.is_a(kind) and scored:
            found.setdefault(trial.setting, {})[trial.seed] = trial
    return [tuple(by_seed[seed] for seed in sorted(by_seed)) for by_seed in found.values()]


def _with(side: tuple[Trial, ...], other: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """The seeds that both sides have, where they have any in common: a network of others has no seed."""
    shared = {trial.seed for trial in side} & {trial.seed for trial in other}
    return tuple(trial for trial in side if trial.seed in shared) if shared else side


def _compare(first: Trial, second: Trial, rows: tuple[RowKind, RowKind]) -> bool:
    """Whether two settings differ in nothing but what their rows differ in."""
    if first.network != second.network or first.conditions != second.conditions:
        return False
    if rows[0].method == rows[1].method and rows[0].fine_tuned == rows[1].fine_tuned:
        return first.setting == second.setting
    if first.parent is not None and second.parent is None and rows[1].method == "ce":
        return first.child_of(second)
    if first.parent is not None or second.parent is not None:
        same = ("parent", "outliers") if first.parent is not None and second.parent is not None else ("outliers",)
        return first.scale == second.scale and all(first.identity.get(k) == second.identity.get(k) for k in same)
    return first.scale == second.scale and first.identity.get("holdout") == second.identity.get("holdout")


def _as_precise(first: Trial, others: list[tuple[Trial, ...]]) -> list[tuple[Trial, ...]]:
    """Of settings that a trial may be compared with, those trained in its own precision, where there are any."""
    same = [each for each in others if each[0].identity.get("precision") == first.identity.get("precision")]
    return same or others


def values_of(case: Case, claim: Claim, ood: str | None = None) -> tuple[list[float], list[float]] | None:
    """The measure of every trial of both sides, in points or degrees; None where any of them has none.

    `ood` is one of the sets, instead of what the claim is over.
    """
    sets = [ood] if ood is not None else case.sets(MEAN if claim.over == EACH else claim.over)
    sides = []
    for kind, side in zip(case.kinds, (case.first, case.second), strict=True):
        found = [_value(trial, kind, claim.measure, sets, case) for trial in side]
        sides.append([value for value in found if value is not None])
        if len(sides[-1]) < len(found) or not found:
            return None
    return sides[0], sides[1]


def _value(trial: Trial, kind: RowKind, measure: str, sets: Sequence[str], case: Case) -> Value:
    if measure in METRICS:
        rows = [row for row in trial.entry["rows"] if row["score"] == kind.score and row["ood"] in sets]
        return _percent(mean_of_votes(rows, measure))
    if measure in ("accuracy", "ece"):
        return _percent(trial.entry["id"].get(measure))
    if measure in ANGLES:
        angles = (trial.entry.get("geometry") or {}).get(kind.score) or {}
        value = angles.get("mean_separability" if measure == "separability" else measure)
        return None if value is None else float(value)
    if measure == "rms":
        known = {row["ood"]: row.get("rms") for row in (trial.entry.get("calibration") or {}).get("rows", ())}
        errors = [known.get(name) for name in sets]
        return None if not errors or None in errors else 100 * fmean(error for error in errors if error is not None)
    attacked = attack_of(trial, measure, case)
    return None if attacked is None else 100 * attacked[0]


def attack_of(trial: Trial, measure: str, case: Case) -> tuple[float, int] | None:
    """`attack_of_run` of a trial: curves of both sides lie in the record of one of them."""
    return attack_of_run([other.record for other in case.trials], trial.run, measure)


def attack_of_run(records: Iterable[Record], run: str, measure: str, steps: int = 0) -> tuple[float, int] | None:
    """(share still right, images attacked) at the norm and epsilon of the measure; the strongest attack that was made.

    `steps` of refinement (JEM-k) came before classification; none is the network as it is. Epsilon 0 is no attack.
    """
    norm, epsilon = measure.split()
    curves = [curve for record in records for curve in record.get("robustness", {}).get("curves", ())]
    mine = [c for c in curves if c["run"] == run and c["norm"] == norm and float(epsilon) in (0.0, *c["epsilons"])]
    mine = [c for c in mine if (c["refinement"] or {"steps": 0})["steps"] == steps]
    if not mine:
        return None
    best = max(mine, key=lambda c: (c["images"]["n"], c["attack"]["steps"], c["attack"]["restarts"]))
    shares = dict(zip((0.0, *best["epsilons"]), (best["clean_accuracy"], *best["accuracy"]), strict=True))
    return shares[float(epsilon)], int(best["images"]["n"])


def _percent(share: Value) -> Value:
    return None if share is None else 100 * share
