"""The table of robustness: accuracy at each epsilon, of plain classifiers beside JEM with and without refinement."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from farout.command_names import as_typed
from farout.papers import Paper, RowKind, load
from farout.report.records import EvaluatedRun, Record, runs_under
from farout.report.tables.cells import Measures, Table
from farout.report.tables.extra import Facts, tabulate_extra

Curve = Mapping[str, Any]  # an entry of robustness.json

NORMS = {"linf": "L-infinity {:g}/255", "l2": "L2 {:g}"}  # titles of an epsilon; L2 over pixels in [0, 1]
NOTHING = Measures((), ("attack",), "percent", 100.0, "Accuracy under attack (%)", titles={"attack": "any attack"})


def robustness_table(
    records: Iterable[Record],
    paper: Paper | str = "jem",
    protocol: str | None = None,
    expected: Mapping[str, str] | None = None,
) -> Table:
    """Accuracy without and under projected gradient descent, a line per norm and epsilon, a column per classifier.

    Figures are those of robustness.json. Where runs were attacked in several ways, each norm shows the one that most
    classifiers share, of these the one with the most images, steps and starts: one table holds one attack. Arguments
    and errors are those of `farout.report.tables.tabulate.table1`; OOD sets play no part.
    """
    paper = load(paper) if isinstance(paper, str) else paper
    runs = runs_under(records, protocol or paper.protocol)
    curves = [curve for run in runs for curve in run.curves]
    chosen = {norm: found for norm in NORMS if (found := _one_attack([c for c in curves if c["norm"] == norm]))}

    def facts(kind: RowKind, run: EvaluatedRun) -> Facts:
        own = [c for found in chosen.values() for c in found if c["run"] == run.name and _reading(c) == kind.score]
        points = {name: share for curve in own for name, share in _points(curve).items()}
        return {**points, "absent": dict.fromkeys(measures.id, "not attacked")}

    measures = _measures([found[0] for found in chosen.values()])
    how = "; ".join(dict.fromkeys(_how(found[0]) for found in chosen.values())) or "no attack was run"
    notes = _refinements([curve for found in chosen.values() for curve in found])
    advice = [] if chosen else [as_typed("No curves: python scripts/robustness.py RUN [BASELINE_RUN] measures them.")]
    return tabulate_extra(paper, "robustness", runs, measures, facts, how, [*notes, *advice])


def _one_attack(curves: Sequence[Curve]) -> list[Curve]:
    """The curves of one norm that share images, epsilons and attack."""
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        facts = [curve["epsilons"], curve["images"], curve["attack"]]
        groups.setdefault(json.dumps(facts, sort_keys=True), []).append(curve)

    def weight(group: Sequence[Curve]) -> tuple[int, ...]:
        images, attack = group[0]["images"], group[0]["attack"]
        share = len({(curve["run"], _reading(curve)) for curve in group})
        return share, images["n"], attack["steps"], attack["restarts"]

    return max(groups.values(), key=weight, default=[])


def _reading(curve: Curve) -> str:
    """How the network classified: "plain", or "JEM-k"."""
    return "plain" if curve["refinement"] is None else f"JEM-{curve['refinement']['steps']}"


def _points(curve: Curve) -> dict[str, float]:
    """Measure -> share of images that are still right; epsilon 0 is no attack."""
    shares = [curve["clean_accuracy"], *curve["accuracy"]]
    return {
        f"{curve['norm']} {epsilon:g}": share for epsilon, share in zip([0, *curve["epsilons"]], shares, strict=True)
    }


def _measures(curves: Sequence[Curve]) -> Measures:
    """A line for every epsilon of the curves, one curve a norm."""
    if not curves:
        return NOTHING
    titles = {f"{c['norm']} {e:g}": NORMS[c["norm"]].format(e) for c in curves for e in (0, *c["epsilons"])}
    return replace(NOTHING, id=tuple(titles), titles=titles)


def _how(curve: Curve) -> str:
    attack = curve["attack"]
    starts = f"{attack['restarts']} random start" + ("s" if attack["restarts"] > 1 else "")
    return f"projected gradient descent of {attack['steps']} steps from {starts}; {curve['images']['which']}"


def _refinements(curves: Sequence[Curve]) -> list[str]:
    """How JEM-k's copies were made, and under which norm where that differs."""
    norms: dict[str, set[str]] = {}
    for curve in curves:
        if facts := curve["refinement"]:
            text = f"mean logits of {facts['copies']} copies of an image with noise {facts['input_noise']:g}"
            norms.setdefault(text, set()).add(NORMS[curve["norm"]].split()[0])
    where = {text: f" under {' and '.join(sorted(under))}" if len(norms) > 1 else "" for text, under in norms.items()}
    return [f"JEM-k{where[text]}: {text}, each after k steps of the run's own chain." for text in norms]
