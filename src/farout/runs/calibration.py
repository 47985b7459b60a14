"""What an evaluation says of confidence: on ID images, and with OOD images among them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from farout.engine.evaluate import correct
from farout.errors import FaroutError
from farout.metrics import Protocol, expected_calibration_error, reliability_curve, tune_temperature
from farout.metrics.pooled import calibration_measures, pooled_calibration
from farout.runs.lineage import unseen_images
from farout.runs.scoring import Predictor
from farout.scores import Outputs


def held_out_temperature(predictor: Predictor) -> float | None:
    """The temperature with the least cross entropy on images that no network of the run's line was trained on.

    None where the run has no such holdout.
    """
    try:
        images = unseen_images(predictor.run, predictor.settings.paths.data_paths())
    except FaroutError:
        return None
    outputs = predictor.outputs(images)
    assert outputs.labels is not None
    return tune_temperature(outputs.logits, outputs.labels)


def confidence_of(outputs: Outputs, temperature: float | None = None) -> Tensor:
    """(N,) largest softmax probability at a temperature, float64."""
    return torch.softmax(outputs.logits.double() / (temperature or 1.0), dim=1).amax(1)


def reliability_bins(id_outputs: Outputs, bins: int) -> dict[str, Any]:
    """What a reliability diagram of the ID images shows: count, mean confidence and accuracy of every bin.

    The confidence is the network's own, without a temperature, and the bins are those of the entry's ECE.
    """
    return reliability_curve(confidence_of(id_outputs), correct(id_outputs), bins).as_bins()


def calibration_facts(
    protocol: Protocol, id_outputs: Outputs, confidences: Mapping[str, Tensor], temperature: float | None
) -> dict[str, Any]:
    """ECE, RMS and MAD calibration error and soft F1 of ID images, and the latter three beside each OOD set.

    `confidences` holds those at `temperature` of "id" and of every OOD set.
    """
    right, confidence = correct(id_outputs), confidences["id"]
    rows = [
        {"ood": name, **pooled_calibration(protocol, confidence, right, others, name)}
        for name, others in confidences.items()
        if name != "id"
    ]
    return {
        "temperature": temperature,
        "id": {
            "ece": expected_calibration_error(confidence, right, protocol.bins),
            **calibration_measures(confidence, right),
        },
        "rows": rows,
    }
