"""How energy fine-tuning depends on its knobs, one at a time: on test sets, and on the holdout that would choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from farout.config.settings import Settings
from farout.errors import ConfigError
from farout.report.records import read_record
from farout.reproduce.rows import TableRequest
from farout.reproduce.stages import Evaluate, Stage, stages_of
from farout.runs.environment import stamp
from farout.runs.run import Run

Value = float | int | None
# Knob -> the values beside the one that the row's file has. None, of outlier images, is all of them.
GRID: Mapping[str, tuple[Value, ...]] = {
    "m_in": (-27.0, -23.0, -19.0, -11.0, -7.0),
    "m_out": (-11.0, -8.0, -3.0, -1.0),
    "energy_weight": (0.01, 0.03, 0.3, 1.0),
    "max_outlier_images": (100, 1000, 10000),
}
HOLDOUT = 0.1


@dataclass(frozen=True)
class Setting:
    """One fine-tuned network: what was changed (nothing: the row as its file has it), for one seed."""

    changed: Mapping[str, Value]
    seed: int
    stages: Sequence[Stage]

    @property
    def run(self) -> Run:
        """The fine-tuned run."""
        return self.evaluation.run

    @property
    def evaluation(self) -> Stage:
        """Its last stage."""
        return next(stage for stage in self.stages if isinstance(stage, Evaluate))

    @property
    def own(self) -> Settings:
        """What it is trained and evaluated with."""
        return self.evaluation.settings


def settings_of(
    request: TableRequest, grid: Mapping[str, Sequence[Value]], device: torch.device
) -> tuple[list[Setting], dict[str, Value]]:
    """The row itself and one change at a time, for every seed; and the values that the row's file has.

    Raises ConfigError for a knob that the row does not have, and where a value is the file's own.
    """
    usual = _usual(request.settings(request.rows[0], request.seeds[0]), grid)
    changes: list[dict[str, Value]] = [{}]
    changes += [{knob: value} for knob, values in grid.items() for value in values if value != usual[knob]]
    found = []
    for seed in request.seeds:
        for changed in changes:
            words = tuple(f"{knob}={'null' if value is None else value}" for knob, value in changed.items())
            own = replace(request, seeds=(seed,), overrides=(*request.overrides, *words))
            found.append(Setting(changed, seed, stages_of(own, device)))
    return found, usual


def _usual(settings: Settings, grid: Mapping[str, Sequence[Value]]) -> dict[str, Value]:
    """Knob -> what the row has for it."""
    known = {**settings.method.arguments, **settings.schedule.record()}
    usual: dict[str, Value] = {}
    for knob in grid:
        if knob in known:
            usual[knob] = known[knob]
        elif knob == "max_outlier_images":
            usual[knob] = settings.max_outlier_images
        else:
            raise ConfigError(f"{knob} is no knob of method={settings.method.name}: choose from {', '.join(known)}")
    return usual


def record_of(request: TableRequest, settings: Sequence[Setting], usual: Mapping[str, Value]) -> dict[str, Any]:
    """What results/ keeps: every setting with its figures, and the value of each knob that the holdout would choose."""
    points = [_point(setting) for setting in settings]
    evaluated = read_record(settings[0].run.folder)["evaluations"][-1]
    own = settings[0].own
    return {
        "sensitivity": own.method.name,
        **{key: evaluated[key] for key in stamp(settings[0].evaluation.device)},
        "scale": request.scale,
        "id_data": request.id_data,
        "backbone": own.backbone.name,
        "outliers": own.outliers,
        "init_from": None if request.init is None else Path(request.init).name,
        "schedule": own.schedule.record(),
        "holdout": own.holdout,
        "ood_data": own.ood_data.name,
        "sets": sorted({row["ood"] for row in evaluated["rows"]}),
        "score": own.method_score,
        "seeds": list(request.seeds),
        "data": settings[0].run.record.get("data"),
        "usual": dict(usual),
        "chosen": {knob: chosen(curve(points, knob, usual[knob])) for knob in usual},
        "points": points,
    }


def _point(setting: Setting) -> dict[str, Any]:
    """One setting's figures, as fractions: on the holdout and the validation corruptions, and on the test sets."""
    own, known = setting.own, setting.run.record["validation"]
    entry = next(
        entry
        for entry in reversed(read_record(setting.run.folder)["evaluations"])
        if entry["protocol"]["name"] == own.protocol.name and entry["ood_data"] == own.ood_data.name
    )
    mean = next(mean for mean in entry["means"] if mean["score"] == own.method_score)
    return {
        "changed": dict(setting.changed),
        "seed": setting.seed,
        "run": setting.run.name,
        "holdout": {key: known[key] for key in ("fpr95", "auroc", "accuracy")},
        "test": {
            **{key: mean[key] for key in ("fpr95", "auroc")},
            "accuracy": entry["id"]["accuracy"],
            "ece": entry["id"]["ece"],
        },
    }


@dataclass(frozen=True)
class CurvePoint:
    """A knob's value and what came of it, means over the seeds, as fractions."""

    value: Value
    holdout_fpr95: float
    test_fpr95: float
    accuracy: float


def curve(points: Sequence[Mapping[str, Any]], knob: str, usual: Value) -> list[CurvePoint]:
    """The points along one knob, by rising value (all images last), the file's own value among them."""
    by_value: dict[Value, list[Mapping[str, Any]]] = {}
    for point in points:
        if set(point["changed"]) <= {knob}:
            by_value.setdefault(point["changed"].get(knob, usual), []).append(point)
    order = sorted(by_value, key=lambda value: float("inf") if value is None else value)
    return [_mean(value, by_value[value]) for value in order]


def _mean(value: Value, points: Sequence[Mapping[str, Any]]) -> CurvePoint:
    return CurvePoint(
        value,
        fmean(point["holdout"]["fpr95"] for point in points),
        fmean(point["test"]["fpr95"] for point in points),
        fmean(point["test"]["accuracy"] for point in points),
    )


def chosen(points: Sequence[CurvePoint]) -> Value:
    """The papers' criterion: the lowest mean FPR95 against the validation corruptions."""
    return min(points, key=lambda point: point.holdout_fpr95).value
