"""The report's card of training: losses, energies and restarts, from the run's metrics.jsonl."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from farout.files import write_bytes, write_text
from farout.metrics.vectors import Vector
from farout.report.figures.style import png_bytes, svg_text
from farout.report.figures.training_curves import POINTS, CurvePanel, training_curves_figure
from farout.report.page.markup import Inliner, beside, card, items, paragraph, plain_table
from farout.report.records import Record

LOGGED = "train/"  # begins the names of what training logs
LOSSES = {"p_x": "p(x)", "p_y_given_x": "p(y|x)", "p_x_y": "p(x|y)"}  # others go by their own name
# Mean energies of a step: what each is of. The first that a run has is what the others are compared with.
ENERGIES = {
    "energy_data": "data",
    "energy_id": "ID",
    "energy_samples": "samples",
    "energy_noise": "noise",
    "energy_outliers": "outliers",
}
ROWS = 10  # of the table of figures
AVERAGES = "As training logged them: exponential averages over the last few steps, which begin at 0 in every epoch."


@dataclass(frozen=True)
class TrainingCurves:
    """What training logged, without the steps that it took back.

    Attributes:
        steps: (N,) in rising order.
        values: name -> (N,), NaN where a line does not have it.
        unreadable: how many lines of the file are none.
    """

    steps: Vector
    values: Mapping[str, Vector]
    unreadable: int = 0

    def losses(self) -> dict[str, Vector]:
        """The total and its parts, by the names that a reader sees."""
        return {LOSSES.get(name, name): y for name, y in self.values.items() if name not in ENERGIES}

    def energies(self) -> dict[str, Vector]:
        """Mean energies, by what they are of."""
        return {title: self.values[name] for name, title in ENERGIES.items() if name in self.values}


def read_training_curves(run: Path) -> TrainingCurves | None:
    """The curves in a run's folder; None where nothing was logged (imported weights).

    Whatever comes again counts as it came last: a line takes back all earlier lines from its step on (training was
    resumed from a checkpoint, or began afresh), and a divergence those after the step that it went back to.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return None
    kept: list[dict[str, Any]] = []
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    points = list(filter(None, map(_point, lines)))
    for point in points:
        if "event" in point and "resumed_from" not in point:  # a failure: nothing is taken back
            continue
        ours = any(name.startswith(LOGGED) for name in point)  # no event, nor a figure on the holdout
        again = point.get("resumed_from", point["step"] - ours) + 1
        while kept and kept[-1]["step"] >= again:
            kept.pop()
        if ours:
            kept.append(point)
    steps = np.array([point["step"] for point in kept], dtype=np.float64)
    names = dict.fromkeys(name for point in kept for name in point if name.startswith(LOGGED))
    values = {name.removeprefix(LOGGED): np.array([_number(point.get(name)) for point in kept]) for name in names}
    unreadable = len(lines) - len(points)
    return TrainingCurves(steps, values, unreadable) if values or unreadable else None


def _point(line: str) -> dict[str, Any] | None:
    """One line; None where it is torn, as a killed process may leave it."""
    try:
        point = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(point, dict) and all(type(point.get(key, 0)) is int for key in ("step", "resumed_from"))
    return point if known and "step" in point else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def training_card(run: Path | None, record: Record, inliner: Inliner) -> str:
    """Losses and energies over the steps of a run's folder, with its restarts; "" where it logged nothing."""
    curves = None if run is None else read_training_curves(run)
    if curves is None:
        return ""
    restarts = _restarts(record)
    drawn = _drawn(curves, restarts)
    plots = [inliner.plot(svg_text(figure), words) for figure, words in drawn.values()]
    numbers = _numbers(curves) if len(curves.steps) else ""
    shown = beside(plots[0], numbers) if len(plots) == 1 else f'<div class="plots">{"".join(plots)}</div>{numbers}'
    notes = [[AVERAGES] if numbers else [], _about_energies(curves) if drawn else [], _about_axes(curves)]
    return card(
        "Training",
        "training",
        shown,
        *(paragraph(words, "note") for note in notes if (words := " ".join(note))),
        *_about_restarts(restarts),
    )


def save_training(run: Path, record: Record, heading: str = "") -> list[Path]:
    """Writes the card's figures to the run's plots, each as PNG and SVG; the PNG files' paths."""
    curves, paths = read_training_curves(run), []
    for stem, (figure, _) in ({} if curves is None else _drawn(curves, _restarts(record), heading)).items():
        write_text(run / "plots" / f"{stem}.svg", svg_text(figure))
        write_bytes(run / "plots" / f"{stem}.png", png_bytes(figure))
        paths.append(run / "plots" / f"{stem}.png")
    return paths


def _drawn(
    curves: TrainingCurves, restarts: Sequence[Mapping[str, Any]], heading: str = ""
) -> dict[str, tuple[Figure, str]]:
    """Stem -> a figure and what it shows, in words."""
    at = [int(restart["diverged_at"]) for restart in restarts]
    found = {}
    for stem, title, panels in _figures(curves):
        words = "; ".join(f"{panel.title} of {', '.join(panel.lines)}" for panel in panels)
        figure = training_curves_figure(title, curves.steps, panels, at, heading)
        found[stem] = figure, f"curves over the steps of training: {words}"
    return found


def _figures(curves: TrainingCurves) -> Iterator[tuple[str, str, list[CurvePanel]]]:
    """Stem, title and panels of each figure: the losses; the energies, and their gaps to the first of them.

    One point makes no curve.
    """
    if len(curves.steps) < 2:
        return
    if losses := curves.losses():
        yield "training_losses", "Losses in training", [CurvePanel("loss", losses)]
    if energies := curves.energies():
        panels = [CurvePanel("energy", energies)]
        first, *others = energies
        if others:
            with np.errstate(invalid="ignore"):  # infinity less infinity is a gap of the line
                gaps = {name: energies[name] - energies[first] for name in others}
            panels.append(CurvePanel(f"energy above {first}", gaps, logarithmic=len(others) > 1))
        yield "training_energies", "Energies in training", panels


def _about_energies(curves: TrainingCurves) -> Iterator[str]:
    first, *others = curves.energies() or [""]
    if first:
        yield "Minus an energy is log p(x) up to a constant that nobody knows, so only gaps between energies count."
    if others:
        scale = ", on a logarithmic scale that is linear between -1 and 1" if len(others) > 1 else ""
        yield f"Lower panel: the energy of {' and '.join(others)} less that of {first}{scale}."
        yield f"Above 0 the network takes {first} for likelier."
    if "noise" in others:
        yield "The energy of noise is no average but one reading, always of the same images."


def _about_axes(curves: TrainingCurves) -> Iterator[str]:
    """What is drawn of many points, and what is not drawn."""
    if len(curves.steps) > POINTS:
        yield f"Of {len(curves.steps):,} logged steps: lines are medians of short stretches, bands their whole range."
    panels = [panel for _, _, panels in _figures(curves) for panel in panels]
    spikes = [
        (abs(float(panel.lines[name][i])), f"{name} {panel.lines[name][i]:.3g} at step {curves.steps[i]:,.0f}")
        for panel in panels
        for name, flags in panel.outside().items()
        for i in np.flatnonzero(flags)
    ]
    if spikes:
        number = _counted(len(spikes), "point lies", "points lie")
        yield f"{number} outside the frames, which follow the bulk of the values; the largest: {max(spikes)[1]}."
    if gaps := sum(int((~np.isfinite(values)).sum()) for values in curves.values.values()):
        yield f"{_counted(gaps, 'value is', 'values are')} absent or not finite: gaps in the lines."
    if curves.unreadable:
        yield f"{_counted(curves.unreadable, 'line', 'lines')} of metrics.jsonl cannot be read."


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _restarts(record: Record) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = (record.get("trained") or {}).get("restarts") or ()
    return found


def _about_restarts(restarts: Sequence[Mapping[str, Any]]) -> list[str]:
    if not restarts:
        return []
    times = "once" if len(restarts) == 1 else f"{len(restarts)} times"
    words = f"Training diverged {times} (dotted lines) and went back to a checkpoint with other random numbers:"
    lines = (f"from step {r['diverged_at']:,} to step {r['resumed_from']:,}: {r['reason']}" for r in restarts)
    return [paragraph(words), items(lines)]


def _numbers(curves: TrainingCurves) -> str:
    """A few evenly taken lines of the log, the first and the last among them."""
    lines = {**curves.losses(), **{f"energy of {name}": values for name, values in curves.energies().items()}}
    rows = dict.fromkeys(np.linspace(0, len(curves.steps) - 1, ROWS).round().astype(int).tolist())
    shown = ([f"{curves.steps[i]:,.0f}", *_texts(values[i] for values in lines.values())] for i in rows)
    return plain_table(("step", *lines), shown, "losses and energies over steps")


def _texts(values: Iterable[float]) -> list[str]:
    return ["–" if np.isnan(value) else f"{value:.4g}" for value in values]
