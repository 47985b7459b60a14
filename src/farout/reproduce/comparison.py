"""Runs compared on the same test images: paired intervals of what one has more than another (results/paired-*.json)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from farout import papers
from farout.engine.progress import say
from farout.errors import ConfigError
from farout.metrics.paired import (
    MEAN,
    Side,
    paired_calibration,
    paired_differences,
    paired_facts,
    paired_pooled_calibration,
)
from farout.metrics.protocol import Protocol
from farout.papers.claims import claims_of
from farout.report.evidence import ID, Evidence
from farout.report.page.rebuild import read_evidence
from farout.report.records import PAIRED, name_of, read_record, trunk_of
from farout.reproduce.trials import Trial, trials_of
from farout.runs.environment import stamp


@dataclass(frozen=True)
class Evaluated:
    """A run's evaluation with its scores image by image."""

    trial: Trial
    evidence: Evidence

    @property
    def scores(self) -> list[str]:
        return list(dict.fromkeys(row["score"] for row in self.trial.entry["rows"]))

    @property
    def rows(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """(score, OOD set) -> row."""
        return {(row["score"], row["ood"]): row for row in self.trial.entry["rows"]}


@dataclass(frozen=True)
class Member:
    """One side of a comparison: the seeds of one setting under one score."""

    runs: tuple[Evaluated, ...]
    score: str

    @property
    def columns(self) -> Side:
        return tuple(f"{run.trial.run}/{self.score}" for run in self.runs)

    @property
    def sets(self) -> list[str]:
        """The OOD sets on which all seeds have the score, image by image."""
        first, *others = self.runs
        named = [ood for score, ood in first.rows if score == self.score]
        scored = [ood for ood in named if all((self.score, ood) in run.rows for run in others)]
        return [ood for ood in scored if all(self._has(run, ood) and self._has(run, ID) for run in self.runs)]

    def _has(self, run: Evaluated, name: str) -> bool:
        return self.score in run.evidence.scores.get(name, {})

    @property
    def names(self) -> list[str]:
        return [run.trial.run for run in self.runs]


def compare(
    folders: Sequence[Path], protocol: str | None = None, ood_data: str | None = None, resamples: int = 1000
) -> dict[str, Any]:
    """The record of a comparison: every pair of sides that a claim of the papers compares, and accuracy and ECE.

    Sides are the seeds of one setting under one score; settings of which no claim compares any two scores are compared
    under every score that both have. The evaluations compared are the last ones that all runs have under one protocol
    (`protocol`, else rather a paper's than the plain one) on one list of sets (`ood_data`, else any).

    Raises MissingDataError or ConfigError where a run has no scores of it, or where the images are not the same.
    """
    runs = _evaluated(folders, protocol, ood_data)
    entry = runs[0].trial.entry
    _check_images(runs)
    members = _members(runs)
    pairs = _pairs(members)
    if not pairs:
        raise ConfigError("there is nothing to compare: name two runs that have a score in common, evaluated alike")
    used = [members[i] for i in sorted({i for pair in pairs for i in pair})]
    place = {id(member): i for i, member in enumerate(used)}
    chosen = [(place[id(members[a])], place[id(members[b])]) for a, b in pairs]
    rule = replace(Protocol(**entry["protocol"]), bootstrap=resamples)
    say(f"  {resamples} resamples of {sum(len(member.runs) for member in used)} scores")
    return {
        **stamp(torch.device("cpu")),
        **paired_facts(rule),
        "protocol": entry["protocol"],
        "ood_data": entry.get("ood_data"),
        "max_eval_images": entry.get("max_eval_images"),
        "n_id": entry["id"]["n"],
        "runs": [
            {"run": r.trial.run, "identity": r.trial.identity, "weights": r.trial.entry["depends_on"]["weights"]}
            for r in runs
        ],
        "sides": [{"runs": member.names, "score": member.score} for member in used],
        "differences": [*_of_sets(rule, used, chosen), *_of_id(rule, used, chosen), *_of_both(rule, used, chosen)],
    }


def name_of_comparison(record: Mapping[str, Any]) -> str:
    """What its file is called: scale, protocol, network, ID set and list of sets."""
    own = record["runs"][-1]["identity"]
    scale = own.get("scale") if name_of(own["method"]) != "imported" else "literature"
    begun = "_from_others" if str(own.get("parent")).startswith("weights-") else ""
    parts = (f"{scale}{begun}", record["protocol"]["name"], trunk_of(own["backbone"]), name_of(own["id_data"]))
    return f"{PAIRED}{'-'.join(map(str, parts))}-{record['ood_data']}.json"


def _evaluated(folders: Sequence[Path], protocol: str | None, ood_data: str | None) -> list[Evaluated]:
    trials = {folder: trials_of([read_record(folder)]) for folder in folders}
    shared = [{trial.conditions for trial in own} for own in trials.values()]
    common = set.intersection(*shared)
    wanted = [c for c in common if protocol in (None, c[0]) and ood_data in (None, c[1])]
    wanted = [c for c in wanted if c[0] != "plain"] or wanted
    if not wanted:
        known = sorted({f"{c[0]} on {c[1]}" for own in shared for c in own})
        asked = f"{f'protocol {protocol}' if protocol else 'one protocol'} on {ood_data or 'one list of sets'}"
        raise ConfigError(f"these runs share no evaluation by {asked}; there is {', '.join(known)}")
    found = []
    for folder, own in trials.items():
        trial = [t for t in own if t.conditions == min(wanted, key=_limit_and_name)][-1]
        if "depends_on" not in trial.entry:
            raise ConfigError(
                f"{folder} does not say what its figures depend on: evaluate it again (python eval.py run={folder})"
            )
        found.append(Evaluated(trial, read_evidence(folder / "scores", trial.entry)))
    return found


def _limit_and_name(conditions: tuple[Any, ...]) -> tuple[Any, ...]:
    """Evaluations on all images come first, then those on the most."""
    *names, limit = conditions
    return limit is not None, -(limit or 0), *names


def _check_images(runs: Sequence[Evaluated]) -> None:
    """Raise ConfigError unless the runs were evaluated on the very same images, in the same order."""
    first = runs[0].trial.entry["depends_on"]
    for run in runs[1:]:
        own = run.trial.entry["depends_on"]
        for name in ("id", *(set(first["ood"]) & set(own["ood"]))):
            a, b = (known["id"] if name == "id" else known["ood"][name] for known in (first, own))
            whole = (
                a["n"] == a["of"] or first["references"] == own["references"]
            )  # else other duplicates may be dropped
            if a != b or not whole:
                names = f"{runs[0].trial.run} and {run.trial.run}"
                raise ConfigError(f"{names} were evaluated on other images of {name}: evaluate both again")


def _members(runs: Sequence[Evaluated]) -> list[Member]:
    """Settings with their seeds, under every score that all seeds have."""
    settings: dict[tuple[Any, ...], list[Evaluated]] = {}
    for run in runs:
        settings.setdefault(run.trial.setting, []).append(run)
    every = [Member(tuple(seeds), score) for seeds in settings.values() for score in seeds[0].scores]
    return [member for member in every if member.sets]


def _pairs(members: Sequence[Member]) -> list[tuple[int, int]]:
    """What claims compare, and of settings that no claim connects every score that both have."""
    every = list(combinations(range(len(members)), 2))
    claimed = [(a, b) for a, b in every if _claimed(members[a], members[b])]
    runs = [tuple(member.names) for member in members]
    connected = {frozenset((runs[a], runs[b])) for a, b in claimed}
    alike = [(a, b) for a, b in every if members[a].score == members[b].score]
    return sorted(claimed + [(a, b) for a, b in alike if frozenset((runs[a], runs[b])) not in connected])


def _claimed(first: Member, second: Member) -> bool:
    """Whether a claim of any paper compares such rows."""
    sides = (first, second)
    for name in papers.names():
        for claim in claims_of(name):
            for other in claim.second:
                for a, b in (sides, sides[::-1]):
                    if _is_row(a, claim.first) and _is_row(b, other):
                        return True
    return False


def _is_row(member: Member, kind: papers.RowKind) -> bool:
    trial = member.runs[0].trial
    return trial.is_a(kind) and kind.on(trial.id_data).score == member.score


def _of_sets(rule: Protocol, members: Sequence[Member], pairs: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Differences of FPR95, AUROC and AUPR, each pair on the sets that both its sides have."""
    groups: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for a, b in pairs:
        both = tuple(ood for ood in members[a].sets if ood in members[b].sets)
        if both:
            groups.setdefault(both, []).append((a, b))
    made: list[dict[str, Any]] = []
    for sets, own in groups.items():
        columns = {c: (r, members[i].score) for i in {*sum(own, ())} for c, r in _columns(members[i])}
        scores = {
            name: {column: np.asarray(run.evidence.scores[name][score]) for column, (run, score) in columns.items()}
            for name in (ID, *sets)
        }
        rows = {(column, ood): run.rows[score, ood] for column, (run, score) in columns.items() for ood in sets}
        found = paired_differences(rule, scores, rows, [(members[a].columns, members[b].columns) for a, b in own])
        for (a, b), of_pair in zip(own, found, strict=True):
            made += [
                {"first": a, "second": b, **d, **({"over": list(sets)} if d["ood"] == MEAN else {})} for d in of_pair
            ]
    return made


def _columns(member: Member) -> list[tuple[str, Evaluated]]:
    return list(zip(member.columns, member.runs, strict=True))


def _of_id(rule: Protocol, members: Sequence[Member], pairs: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Accuracy and ECE of every pair of settings, once, where both have a trained classifier."""
    known = _predictions(members)
    once = _once(members, pairs, known)
    if not once:
        return []
    sides = [(tuple(members[a].names), tuple(members[b].names)) for a, b in once]
    facts = {run.trial.run: run.trial.entry["id"] for member in members for run in member.runs}
    found = paired_calibration(rule, known, facts, sides)
    return [{"first": a, "second": b, **own} for (a, b), own in zip(once, found, strict=True)]


def _of_both(rule: Protocol, members: Sequence[Member], pairs: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """RMS calibration error over ID and OOD images of every pair of settings, once, on the sets that both have.

    Only at temperature 1, where the largest softmax probability of every image is kept: it is the score MSP.
    """
    by_run = {run.trial.run: run for member in members for run in member.runs}
    kept = {name: _errors(run) for name, run in by_run.items()}
    known = {name: own for name, own in _predictions(members).items() if kept[name]}
    made: list[dict[str, Any]] = []
    for a, b in _once(members, pairs, known):
        names = [*members[a].names, *members[b].names]
        sets = [ood for ood in kept[names[0]] if all(ood in kept[name] for name in names)]
        if not sets:
            continue
        confidences = {ood: {n: np.asarray(by_run[n].evidence.scores[ood]["msp"]) for n in names} for ood in sets}
        errors = {(name, ood): kept[name][ood] for name in names for ood in sets}
        own = {name: known[name] for name in names}
        sides = (tuple(members[a].names), tuple(members[b].names))
        (found,) = paired_pooled_calibration(rule, own, confidences, errors, [sides])
        made += [{"first": a, "second": b, **d, **({"over": sets} if d["ood"] == MEAN else {})} for d in found]
    return made


def _errors(run: Evaluated) -> dict[str, float]:
    """OOD set -> RMS calibration error over ID and OOD images, where the confidences that it is of are kept."""
    facts = run.trial.entry.get("calibration") or {"temperature": None, "rows": ()}
    if facts["temperature"] is not None:
        return {}
    rows = [row for row in facts["rows"] if row.get("rms") is not None]
    return {row["ood"]: row["rms"] for row in rows if "msp" in run.evidence.scores.get(row["ood"], {})}


def _predictions(members: Sequence[Member]) -> dict[str, tuple[Any, Any]]:
    """Run -> (confidence, correct) of its ID images, where it has a trained classifier."""
    runs = [run for member in members for run in member.runs]
    found = {run.trial.run: (run.evidence.confidence, run.evidence.correct) for run in runs}
    return {
        name: (np.asarray(sure), np.asarray(right))
        for name, (sure, right) in found.items()
        if sure is not None and right is not None
    }


def _once(
    members: Sequence[Member], pairs: Sequence[tuple[int, int]], known: Mapping[str, Any]
) -> list[tuple[int, int]]:
    """One pair of sides for every two settings, whatever their scores, where all their runs are known."""
    once: dict[frozenset[str], tuple[int, int]] = {}
    for a, b in pairs:
        names = {*members[a].names, *members[b].names}
        if members[a].names != members[b].names and names <= known.keys():
            once.setdefault(frozenset(names), (a, b))
    return list(once.values())
