"""Angles on the sphere against the reference's numbers, and shapes that can be said in words."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from farout.errors import FaroutError
from farout.metrics.geometry import (
    class_directions,
    compactness_degrees,
    dispersion_degrees,
    nearest_degrees,
    separability_degrees,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_jem_cider.json").read_text())["cider"]
PROTOTYPES = np.array(VECTORS["inputs"]["prototypes_init"])
FEATURES = np.array(VECTORS["inputs"]["features"])
LABELS = np.array(VECTORS["inputs"]["labels"])


def ood() -> torch.Tensor:
    i, j = torch.arange(6, dtype=torch.float64)[:, None], torch.arange(4, dtype=torch.float64)
    return F.normalize(torch.sin(2.9 * (i + 1) - 1.4 * (j + 1) * (i + 1) + 1.9 * j), dim=1)


def test_measures_match_the_formulas():
    case = VECTORS["geometry_measures_NOT_official_code"]
    assert dispersion_degrees(PROTOTYPES) == pytest.approx(case["dispersion_deg"], rel=1e-9)
    assert compactness_degrees(FEATURES, PROTOTYPES, LABELS) == pytest.approx(case["compactness_deg"], rel=1e-9)
    ours = separability_degrees(FEATURES, ood(), PROTOTYPES)
    assert ours == pytest.approx(case["separability_deg(acos(ood mean)-acos(id mean))"], rel=1e-9)
    assert ours != pytest.approx(case["separability_deg(mean of acos per sample)"], rel=1e-3)


def test_separability_matches_the_deleted_code():
    case = VECTORS["separability_official_deleted_code"]
    assert nearest_degrees(FEATURES, PROTOTYPES) == pytest.approx(case["id_degree"], rel=1e-9)
    assert nearest_degrees(ood(), PROTOTYPES) == pytest.approx(case["ood_degree"], rel=1e-9)
    ours = separability_degrees(FEATURES, ood(), PROTOTYPES)
    assert ours == pytest.approx(case["separability_degree=ood-id"], rel=1e-9)


def test_known_shapes():
    axes = torch.eye(3)
    assert dispersion_degrees(axes) == pytest.approx(90)
    assert dispersion_degrees(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(180)
    assert compactness_degrees(axes[[0, 2]], axes, torch.tensor([0, 2])) == 0  # class 1 has no image
    between = torch.tensor([[1.0, 1.0, 1.0]])
    assert separability_degrees(axes, between, axes) == pytest.approx(math.degrees(math.acos(1 / math.sqrt(3))))


def test_compactness_is_a_mean_over_classes_not_images():
    axes = torch.eye(2)
    features = torch.cat([axes[0].repeat(9, 1), torch.tensor([[1.0, 0.0]])])  # class 1's only image lies on class 0
    labels = torch.tensor([0] * 9 + [1])
    assert compactness_degrees(features, axes, labels) == pytest.approx(60)


def test_length_dtype_and_kind_of_array_do_not_matter():
    scaled = torch.tensor(FEATURES * np.arange(1, 9)[:, None])
    expected = compactness_degrees(FEATURES, PROTOTYPES, LABELS)
    assert compactness_degrees(scaled, PROTOTYPES * 3, torch.tensor(LABELS)) == pytest.approx(expected, rel=1e-12)
    single = torch.tensor(FEATURES, dtype=torch.float32, requires_grad=True)
    assert compactness_degrees(single, PROTOTYPES, LABELS) == pytest.approx(expected, rel=1e-5)


def test_class_directions_are_normalised_means_of_unit_vectors():
    directions = class_directions(np.array([[2.0, 0.0], [0.0, 5.0], [0.0, -1.0]]), np.array([0, 0, 1]), 2)
    assert torch.allclose(directions, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, -1.0]], dtype=torch.float64))
    with pytest.raises(FaroutError, match="1 of 3 class means are zero"):
        class_directions(np.eye(2), np.array([0, 1]), 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dispersion_degrees(np.eye(3)[:1]), "at least two"),
        (lambda: dispersion_degrees(np.zeros((2, 3))), "2 of 2 prototypes are zero"),
        (lambda: nearest_degrees(np.full((1, 3), np.nan), np.eye(3)), "1 of 1 features"),
        (lambda: nearest_degrees(np.empty((0, 3)), np.eye(3)), "at least one"),
        (lambda: nearest_degrees(np.ones(3), np.eye(3)), "vectors in rows"),
        (lambda: compactness_degrees(np.eye(3), np.eye(3), np.array([0, 1])), "as many labels"),
        (lambda: compactness_degrees(np.eye(3), np.eye(3), np.array([0, 1, 3])), "not within 3"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(FaroutError, match=message):
        call()
