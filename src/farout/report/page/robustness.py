"""The report's card of accuracy under attack, from the run's robustness.json."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from farout.errors import ConfigError
from farout.report.figures.robustness import AXES, RobustnessCurve, robustness_figure
from farout.report.figures.style import svg_text
from farout.report.page.markup import Inliner, card, paragraph, plain_table, text

Curve = Mapping[str, Any]  # an entry of robustness.json


def robustness_card(run: Path | None, inliner: Inliner) -> str:
    """Accuracy over epsilon as a figure and as tables, and the distal adversarials; "" where the run was not attacked.

    Raises ConfigError where robustness.json, or the figure of the distal adversarials, is damaged.
    """
    path = None if run is None else run / "robustness.json"
    if run is None or path is None or not path.is_file():
        return ""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if not known["curves"]:
            return ""
        parts = [*_accuracies(known["curves"], inliner), _distal(run / "plots/distal.svg", known["distal"], inliner)]
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        reason = str(problem).splitlines()[0]
        raise ConfigError(f"{path} is damaged ({reason}): remove it and attack the run again") from None
    return card("Robustness", "robustness", *parts)


def comparable(curves: Sequence[Curve]) -> list[Curve]:
    """The curves of one norm that a reader may compare, the plain networks first, then JEM-k by k.

    robustness.json keeps every curve that was ever measured. Those that share images, epsilons and attack belong
    together; shown are those of the attack that most classifiers were under (of several such, the one with the most
    images, steps and starts, and then the newest), and of each label the newest.
    """
    groups: dict[str, dict[str, Curve]] = {}
    for curve in curves:
        attack = json.dumps([curve["epsilons"], curve["images"], curve["attack"]], sort_keys=True)
        groups.setdefault(attack, {})[curve["label"]] = curve

    def weight(group: Mapping[str, Curve]) -> tuple[int, ...]:
        images, attack = (next(iter(group.values()))[key] for key in ("images", "attack"))
        return len(group), images["n"], attack["steps"], attack["restarts"]

    chosen = max(reversed(groups.values()), key=weight)
    return sorted(chosen.values(), key=lambda curve: (curve["refinement"] or {"steps": -1})["steps"])


def attack_figure(curves: Sequence[Curve], heading: str = "") -> Figure:
    """Accuracy over epsilon, a panel for each norm."""
    panels: dict[str, list[RobustnessCurve]] = {}
    for curve in curves:
        shares = [curve["clean_accuracy"], *curve["accuracy"]]
        panels.setdefault(curve["norm"], []).append(RobustnessCurve(curve["label"], [0, *curve["epsilons"]], shares))
    return robustness_figure(panels, attack_note(curves), heading)


def attack_note(curves: Sequence[Curve]) -> str:
    """What stands under a figure: on which images, by which attack."""
    how = [(curve["images"]["which"], curve["attack"]["steps"], curve["attack"]["restarts"]) for curve in curves]
    words = (f"{which}; PGD, {k} steps, {n} start{'s' if n > 1 else ''}" for which, k, n in how)
    notes = list(dict.fromkeys(words))
    return notes[0] if len(notes) == 1 else "attacks differ by norm"


def _accuracies(curves: Sequence[Curve], inliner: Inliner) -> Iterator[str]:
    """The figure, a table for each norm, and how it was measured."""
    by_norm = {norm: comparable(own) for norm in AXES if (own := [c for c in curves if c["norm"] == norm])}
    shown = [curve for own in by_norm.values() for curve in own]
    yield inliner.plot(
        svg_text(attack_figure(shown)), "accuracy over epsilon of every classifier, a panel for each norm"
    )
    for norm, own in by_norm.items():
        head = ("accuracy (%)", "no attack", *(f"{epsilon:g}" for epsilon in own[0]["epsilons"]))
        yield f"<h3>{text(AXES[norm])}</h3>" + plain_table(head, map(_line, own), f"accuracy under attack, {norm}")
    attacks = {norm: attack_words(own[0]) for norm, own in by_norm.items()}
    named = [f"{AXES[norm].split(':')[0]}: {words}" for norm, words in attacks.items()]
    how = list(dict.fromkeys(attacks.values()))
    for note in [*(how if len(how) == 1 else named), *filter(None, dict.fromkeys(map(refinement_words, shown)))]:
        yield paragraph(note, "note")
    yield paragraph(f"Measured {'; '.join(dict.fromkeys(map(_measured, shown)))}.", "note")
    if further := len(curves) - len(shown):
        words = "1 further curve is" if further == 1 else f"{further} further curves are"
        yield paragraph(f"{words} in robustness.json: of other attacks, or older.", "note")


def _line(curve: Curve) -> list[str]:
    return [curve["label"], *(f"{100 * share:.1f}" for share in (curve["clean_accuracy"], *curve["accuracy"]))]


def attack_words(curve: Curve) -> str:
    """By which attack, and on which images, in a sentence."""
    attack = curve["attack"]
    starts = f"{attack['restarts']} random start" + ("s" if attack["restarts"] > 1 else "")
    return (
        f"{attack['name']} of {attack['steps']} steps from {starts}, seed {attack['seed']}; {curve['images']['which']}."
    )


def refinement_words(curve: Curve) -> str:
    """How JEM-k classifies, in a sentence for all k; "" of a plain network."""
    facts = curve["refinement"]
    if not facts:
        return ""
    words = f"{curve['label'].rpartition('-')[0]}-k: mean logits of {facts['copies']} copies of an image with noise "
    return f"{words}{facts['input_noise']:g}, each after k steps of the run's own chain."


def _measured(curve: Curve) -> str:
    facts = curve["measured"]
    return ", ".join(str(facts[key]) for key in ("date", "device") if facts.get(key))


def _distal(path: Path, entries: Sequence[Mapping[str, Any]], inliner: Inliner) -> str:
    """What each network takes for a class when it starts from noise; "" where there is no picture."""
    if not path.is_file() or not entries:
        return ""
    plot = inliner.plot(path.read_text(encoding="utf-8"), "images from noise, driven to each class, by network")
    ends = (f"{e['label']} {e['mean_confidence'][-1]:.3f} after {e['steps']} steps" for e in entries)
    words = "Distal adversarials: from the same noise, each network is driven to each class, without any image. Mean "
    return f"<h3>From noise</h3>{plot}" + paragraph(f"{words}p(y|x) reached: {', '.join(ends)}.", "note")
