"""What a further log of a run must do: Weights & Biases, CSV and TensorBoard are such."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Sink:
    """Gets what a run logs, beside the JSON lines of its folder; does nothing with what it has no place for."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A point of the training curves; steps may come again, where training went back."""

    def alert(self, step: int, title: str, text: str) -> None:
        """Something that a person should know of."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """A picture of the state of training, a PNG file."""

    def results(self, number: int, evaluations: Sequence[Mapping[str, Any]], plots: Sequence[Path]) -> None:
        """What an evaluation found; `number` entries are in results.json with it."""

    def samples(self, pictures: Sequence[Path], figures: Mapping[str, float]) -> None:
        """What a trained network generates: PNG files, and measures by name."""

    def close(self, failed: bool) -> None:
        """The command's work on the run has ended."""


def headline_of(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy, calibration and means by flat names: id/accuracy, PROTOCOL/id/ece, PROTOCOL/SCORE/mean/METRIC."""
    protocol = evaluation["protocol"]["name"]
    own = {"id/accuracy": evaluation["id"]["accuracy"], f"{protocol}/id/ece": evaluation["id"]["ece"]}
    means = [{**mean, "ood": "mean"} for mean in evaluation["means"]]
    means += [{**mean, "ood": f"mean_{mean['group']}"} for mean in evaluation.get("group_means", ())]
    return {key: value for key, value in own.items() if value is not None} | _flat(protocol, means)


def summary_of(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The same, and PROTOCOL/SCORE/SET/METRIC."""
    return headline_of(evaluation) | _flat(evaluation["protocol"]["name"], evaluation["rows"])


def _flat(protocol: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {
        f"{protocol}/{row['score']}/{row['ood']}/{metric}": row[metric]
        for row in rows
        for metric in ("fpr95", "auroc", "aupr")
        if row[metric] is not None
    }
