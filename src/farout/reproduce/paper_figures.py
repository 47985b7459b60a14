"""Figures of a paper's page, from the records of the table that they stand under: angles, attacks, reliability."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from farout.errors import ConfigError, FaroutError
from farout.metrics.calibration import ReliabilityCurve
from farout.papers import MARKS, ExtraTable, RowKind
from farout.papers.claims import ANGLES, SCALES
from farout.report.figures.angles import AngleRow, angles_figure
from farout.report.figures.reliability import curve_panels
from farout.report.figures.robustness import AXES, RobustnessCurve, robustness_figure
from farout.report.page.robustness import attack_note, attack_words, comparable, refinement_words
from farout.reproduce.result_tables import ResultTable, Seeds, each_of, id_images, limit_of, set_titles, stamp_of
from farout.reproduce.trials import Trial

Curve = Mapping[str, Any]  # one of a record's robustness.curves
STAND_INS = "† is in the place of a set of the paper."
ANGLES_SHOWN = (
    "Bars are means over seeds, ± their sample standard deviation; dots are seeds. Outlines are the paper's features, "
    "of its own training and OOD sets; ? was recalled and not confirmed."
)


@dataclass(frozen=True)
class PaperFigure:
    """A picture in docs/figures: its file, what it shows in words, what ran, and the way to draw it."""

    file: str
    alt: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Network:
    """A row of one of the paper's further tables, and the seeds that were run of it: none, or one setting's."""

    kind: RowKind
    label: str
    seeds: Seeds


def figures_of(table: ResultTable) -> list[PaperFigure]:
    """Those that the table's records hold something for, of the further tables that its paper has."""
    makers = {"geometry": angles, "robustness": attacks, "calibration": reliability}
    extra = table.paper.extra_tables
    found = [make(table, extra[name]) for name, make in makers.items() if name in extra]
    return [figure for figure in found if figure is not None]


def shown(figures: Sequence[PaperFigure], docs: str) -> list[str]:
    """Lines of Markdown; `docs` is where links to docs/ lead."""
    return [
        line for figure in figures for line in (f"![{figure.alt}]({docs}figures/{figure.file})", "", figure.caption, "")
    ]


def angles(table: ResultTable, extra: ExtraTable) -> PaperFigure | None:
    """Dispersion, compactness and separability of every network in every space, the paper's beside ours."""
    titles, networks = set_titles(table.columns), _networks(table, extra)
    methods = list(dict.fromkeys(network.kind.method for network in networks))
    rows = [_angle_row(table, extra, network, titles, methods.index(network.kind.method)) for network in networks]
    rows = [row for row in rows if row.angles or row.published]
    measured = [trial for network in networks if _spaces(network) for trial in network.seeds]
    if not measured:
        return None
    stand_ins = [STAND_INS] if any("†" in title for title in titles.values()) else []
    alt = "; ".join(f"{row.name} {_listed(row.angles.values())}" for row in rows if row.angles)
    return PaperFigure(
        _file(table, "angles"),
        f"Bars of {_and(ANGLES)}, in degrees: {alt}. Under them dots of the separability from each OOD set",
        _caption(table, measured, " ".join([ANGLES_SHOWN, *stand_ins, _directions(networks)]), _evaluated(measured)),
        partial(angles_figure, rows, _heading(table)),
    )


def _angle_row(
    table: ResultTable, extra: ExtraTable, network: Network, titles: Mapping[str, str], colour: int
) -> AngleRow:
    kind, known = network.kind, _spaces(network)
    published = {measure: extra.value(table.trials[0].id_data, kind.key, measure) for measure in ANGLES}
    theirs = {m: (v.value, MARKS[v.certainty]) for m, v in published.items() if v.value is not None}
    by_set = [space["separability"] for space in known]
    apart = {title: [own[ood] for own in by_set if ood in own] for ood, title in titles.items()}
    return AngleRow(network.label, colour, kind.score != "features", _angles(known), theirs, apart)


def _directions(networks: Sequence[Network]) -> str:
    """What stands for a class in each space."""
    found: dict[str, list[str]] = {}
    for network in networks:
        for space in _spaces(network)[:1]:
            found.setdefault(space.get("directions", "not stated"), []).append(network.label)
    return f"Directions of classes are {'; '.join(f'{what} in {_and(names)}' for what, names in found.items())}."


def _spaces(network: Network) -> list[Mapping[str, Any]]:
    """What the records have of the row's space, a value for each seed."""
    found = ((trial.entry.get("geometry") or {}).get(network.kind.score) for trial in network.seeds)
    return [facts for facts in found if facts]


def _angles(spaces: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    keys = {measure: "mean_separability" if measure == "separability" else measure for measure in ANGLES}
    known = {m: [float(s[key]) for s in spaces if s.get(key) is not None] for m, key in keys.items()}
    return {measure: values for measure, values in known.items() if values}


def attacks(table: ResultTable, extra: ExtraTable) -> PaperFigure | None:
    """Accuracy over epsilon, a panel for each norm: the classifier, and JEM after each number of refinement steps."""
    names = {
        (trial.run, network.kind.score): network.label for network in _networks(table, extra) for trial in network.seeds
    }
    curves = [curve for curve in _curves(table) if (curve["run"], _reading(curve)) in names]
    panels: dict[str, list[RobustnessCurve]] = {}
    for norm in (norm for norm in AXES if any(curve["norm"] == norm for curve in curves)):
        mine = [(names[curve["run"], _reading(curve)], curve) for curve in curves if curve["norm"] == norm]
        panels[norm] = [_mean_curve(n, [c for name, c in mine if name == n]) for n in dict.fromkeys(n for n, _ in mine)]
    if not panels:
        return None
    runs = {curve["run"] for curve in curves}
    words = [*map(attack_words, curves), *map(refinement_words, curves)]
    how = " ".join(word for word in dict.fromkeys(words) if word)
    measured = each_of("attacked on", (stamp_of(curve["measured"]) for curve in curves))
    return PaperFigure(
        _file(table, "attacks"),
        f"Accuracy in percent under PGD. {' '.join(_spoken(norm, own) for norm, own in panels.items())}",
        _caption(table, [trial for trial in table.trials if trial.run in runs], how, measured),
        partial(robustness_figure, panels, attack_note(curves), _heading(table), beside=True),
    )


def _curves(table: ResultTable) -> Iterator[Curve]:
    """Of every record, the curves of each norm that share an attack; a baseline's lie in the record beside it."""
    for record in {trial.run: trial.record for trial in table.trials}.values():
        known = record.get("robustness", {}).get("curves", ())
        for norm in AXES:
            if own := [curve for curve in known if curve["norm"] == norm]:
                yield from comparable(own)


def _reading(curve: Curve) -> str:
    """How the network classified, as the paper's rows name it: "plain", or "JEM-k"."""
    return "plain" if curve["refinement"] is None else f"JEM-{curve['refinement']['steps']}"


def _mean_curve(name: str, curves: Sequence[Curve]) -> RobustnessCurve:
    """The mean over seeds, of those that were attacked at the epsilons of the first."""
    own = [curve for curve in curves if curve["epsilons"] == curves[0]["epsilons"]]
    shares = zip(*((curve["clean_accuracy"], *curve["accuracy"]) for curve in own), strict=True)
    return RobustnessCurve(name, [0.0, *own[0]["epsilons"]], [fmean(point) for point in shares])


def _spoken(norm: str, curves: Sequence[RobustnessCurve]) -> str:
    """A panel in words."""
    lines = (f"{curve.name} {', '.join(f'{100 * share:.1f}' for share in curve.accuracy)}" for curve in curves)
    epsilons = ", ".join(f"{epsilon:g}" for epsilon in curves[0].epsilons)
    return f"{AXES[norm].split(':')[0]}, epsilon {epsilons}: {'; '.join(lines)}."


def reliability(table: ResultTable, extra: ExtraTable) -> PaperFigure | None:
    """Accuracy by confidence, a panel for each seed of each network whose record has the bins."""
    panels, measured = {}, []
    known = [(seed, n.label, trial) for n in _networks(table, extra) for seed, trial in enumerate(n.seeds)]
    for _, name, trial in sorted(known, key=lambda entry: entry[0]):
        if bins := trial.entry["id"].get("reliability"):
            panels[f"{name}, seed {trial.seed}"] = _curve_of(bins, trial)
            measured.append(trial)
    if not panels:
        return None
    errors = "; ".join(f"{name}: ECE {100 * curve.error:.2f} %" for name, curve in panels.items())
    what = "Accuracy of the images in each bin of confidence: the largest softmax probability, without a temperature."
    return PaperFigure(
        _file(table, "reliability"),
        f"Reliability diagrams, accuracy by confidence in bins. {errors}",
        _caption(table, measured, what, _evaluated(measured)),
        partial(curve_panels, panels, _heading(table)),
    )


def _curve_of(bins: Mapping[str, Any], trial: Trial) -> ReliabilityCurve:
    try:
        return ReliabilityCurve.of_bins(bins)
    except FaroutError as problem:
        file = trial.record.get("file", trial.run)
        raise ConfigError(f"results/{file}: {problem}; keep the run's record again") from None


def _networks(table: ResultTable, extra: ExtraTable) -> list[Network]:
    """Every row of the further table, once for each setting: of several, the label has the folder's code."""
    settings = {tuple(trial.run for trial in c.seeds): c.seeds for c in table.columns}.values()
    found = []
    for kind in (kind for kind in extra.kinds.values() if kind.method):
        mine = [seeds for seeds in settings if seeds[0].is_a(kind)]
        codes = [f" ({seeds[0].code})" if len(mine) > 1 else "" for seeds in mine]
        found += [Network(kind, kind.label + code, seeds) for code, seeds in zip(codes, mine, strict=True)]
        found += [] if mine else [Network(kind, kind.label, ())]
    return found


def _file(table: ResultTable, what: str) -> str:
    """A name that no other table's picture has: by all that tells tables apart."""
    first = table.trials[0]
    trunk, size, id_data = first.network
    limit = first.entry.get("max_eval_images")
    parts = (
        table.paper.name,
        table.scale,
        "x".join([trunk, *re.findall(r"\d+", size)]),
        id_data,
        str(first.entry.get("ood_data")),
    )
    return f"{'-'.join(parts)}{f'-{limit}' if limit else ''}-{what}.svg"


def _heading(table: ResultTable) -> str:
    seeds = list(dict.fromkeys(str(trial.seed) for trial in table.trials))
    trunk, size, _ = table.trials[0].network
    said = f"seed{'s' if len(seeds) > 1 else ''} {_and(seeds)}"
    return f"{table.id_title}, {trunk}{size}, scale {SCALES[table.scale]}, {said}"


def _caption(table: ResultTable, trials: Sequence[Trial], what: str, measured: str) -> str:
    """What is shown, in sentences, and of what: scale, seeds, devices, days, commits, images."""
    parts = [
        f"{_heading(table)}{limit_of(table.trials[0])}",
        each_of("trained on", (stamp_of(t.record.get("trained") or {}) for t in trials if not t.imported)),
        measured,
        each_of("ID images", map(id_images, trials)),
    ]
    return f"{what} {'; '.join(part for part in parts if part)}."


def _evaluated(trials: Sequence[Trial]) -> str:
    return each_of("evaluated on", (stamp_of(trial.entry) for trial in trials))


def _listed(values: Any) -> str:
    return ", ".join(f"{fmean(of_seeds):.1f}" for of_seeds in values)


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
