"""The linear probe against what is known of the features."""

import numpy as np
import pytest

from farout.errors import FaroutError
from farout.metrics.linear_probe import linear_probe

DRAW = np.random.default_rng(0)


def clusters(n: int, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Three Gaussian classes in 4 dimensions, their means apart; one dimension constant, one of another scale."""
    labels = DRAW.integers(0, 3, n)
    points = DRAW.normal(size=(n, 4)) + distance * np.eye(4)[labels]
    points[:, 3] = 7.0
    points[:, 0] *= 1000
    return points, labels


def test_separate_classes_are_told_apart():
    found = linear_probe(*clusters(300, 12.0), *clusters(200, 12.0))
    assert found["accuracy"] == 1
    assert found["converged"]
    assert found["fitted_on"] == 300


def test_overlapping_classes_as_well_as_the_best_rule():
    """The nearest true mean is the best linear rule of equal spherical Gaussians."""
    train, (points, labels) = clusters(4000, 2.0), clusters(4000, 2.0)
    scaled = points[:, :3] / [1000, 1, 1]
    best = (np.argmax(scaled, axis=1) == labels).mean()
    assert linear_probe(*train, points, labels)["accuracy"] == pytest.approx(best, abs=0.02)
    assert 0.6 < best < 0.95


def test_labels_without_relation_give_chance():
    points, labels = clusters(600, 3.0)
    train = points[:300], DRAW.permutation(labels[:300])
    assert linear_probe(*train, points[300:], DRAW.permutation(labels[300:]))["accuracy"] < 0.45


def test_what_no_probe_can_use_is_named():
    points, labels = clusters(20, 3.0)
    with pytest.raises(FaroutError, match="only one"):
        linear_probe(points, np.zeros(20), points, labels)
    points[3, 1] = np.nan
    with pytest.raises(FaroutError, match="not finite"):
        linear_probe(points, labels, points, labels)
