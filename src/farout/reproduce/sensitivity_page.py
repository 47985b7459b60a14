"""A sensitivity record in words and as a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from farout.report.figures.sensitivity import KnobCurve, sensitivity_figure
from farout.reproduce.sensitivity import CurvePoint, Value, curve

Record = Mapping[str, Any]


def curves_of(record: Record) -> dict[str, list[CurvePoint]]:
    """Knob -> its curve."""
    return {knob: curve(record["points"], knob, usual) for knob, usual in record["usual"].items()}


def drawn(record: Record) -> Figure:
    """The figure."""
    knobs = [_knob_curve(record, knob, points) for knob, points in curves_of(record).items()]
    return sensitivity_figure("Energy fine-tuning, one knob at a time", knobs, _where(record))


def _knob_curve(record: Record, knob: str, points: list[CurvePoint]) -> KnobCurve:
    values = [point.value for point in points]
    return KnobCurve(
        knob,
        [written(value) for value in values],
        np.array([100 * point.test_fpr95 for point in points]),
        np.array([100 * point.holdout_fpr95 for point in points]),
        np.array([100 * point.accuracy for point in points]),
        values.index(record["usual"][knob]),
        values.index(record["chosen"][knob]),
    )


def written(value: Value) -> str:
    """A value as it is typed; all images where there is no limit."""
    if value is None:
        return "all"
    return f"{value:g}" if abs(value) < 1000 else f"{int(value):,}".replace(",", " ")


def sweeps(records: Sequence[Record], folder: str = "../results", figures: str = "figures") -> str:
    """Every recorded sweep as Markdown, with its figure (`figure_name`) and a link to its record."""
    parts = []
    for record in records:
        parts += [
            f"### Energy fine-tuning, one knob at a time: {_where(record)}",
            "",
            f"![FPR95 by each knob, on OOD test sets and on validation corruptions]({figures}/{figure_name(record)})",
            "",
            markdown(record),
            f"[Record]({folder}/{record['file']}).",
            "",
        ]
    return "\n".join(parts) or "No sweep is recorded yet."


def figure_name(record: Record) -> str:
    """Of its drawing in docs/figures."""
    return str(record["file"]).removesuffix(".json") + ".svg"


def markdown(record: Record) -> str:
    """A table: a line for each setting, the file's own and the chosen values marked."""
    lines = [
        _caption(record),
        "",
        "| knob | value | FPR95, OOD test sets | FPR95, validation corruptions | ID accuracy |",
        "|---|---:|---:|---:|---:|",
    ]
    for knob, points in curves_of(record).items():
        for point in points:
            marks = " *" * (point.value == record["usual"][knob]) + " (chosen)" * (
                point.value == record["chosen"][knob]
            )
            figures = (point.test_fpr95, point.holdout_fpr95, point.accuracy)
            cells = " | ".join(f"{100 * figure:.1f}" for figure in figures)
            lines.append(f"| `{knob}` | {written(point.value)}{marks} | {cells} |")
    return "\n".join([*lines, ""])


def _where(record: Record) -> str:
    return f"{record['backbone']}, {record['id_data']}, scale {record['scale']}, seeds {_seeds(record)}"


def _seeds(record: Record) -> str:
    return " ".join(map(str, record["seeds"]))


def _caption(record: Record) -> str:
    steps, epochs = record["schedule"].get("max_steps"), record["schedule"]["epochs"]
    length = f"{epochs} epochs" if steps is None else f"at most {steps} updates"
    start = f"from {record['init_from']}" if record["init_from"] else "from its own pre-training"
    return (
        f"{record['backbone']} on {record['id_data']}, {start}, {length}, outliers {record['outliers']}, "
        f"scale {record['scale']}, seeds {_seeds(record)}; holdout {record['holdout']:g}; {record['ood_data']} sets "
        f"({len(record['sets'])}); {record['device']}, PyTorch {record['torch']}, {record['date']}, commit "
        f"{record['commit']}. In percent; * is the experiment's own value; (chosen) has the holdout's lowest FPR95 "
        "against the validation corruptions, by which the papers choose. Each line changes one knob alone."
    )
