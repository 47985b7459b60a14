"""Calibration with OOD images among the ID images."""

import numpy as np
import pytest

from farout.metrics import Protocol, calibration_error, soft_f1
from farout.metrics.pooled import calibration_measures, pooled_calibration
from farout.metrics.protocol import ood_draws

RNG = np.random.default_rng(0)
ID = RNG.uniform(0.4, 1, 1000)
CORRECT = RNG.uniform(size=1000) < ID
OOD = RNG.uniform(0.1, 0.9, 300)


def test_all_images_once():
    pool, flags = np.concatenate([ID, OOD]), np.concatenate([CORRECT, np.zeros(300)])
    assert pooled_calibration(Protocol("plain"), ID, CORRECT, OOD, "some") == {
        "rms": calibration_error(pool, flags),
        "mad": calibration_error(pool, flags, norm="mad"),
        "soft_f1": soft_f1(pool, flags),
    }


def test_the_mean_over_the_draws_of_the_detection_metrics():
    protocol = Protocol("five", ratio=5, redraws=4)
    by_hand = []
    for rows in ood_draws(protocol, 1000, 300, "some"):
        assert len(rows) == 200
        by_hand.append(calibration_measures(np.r_[ID, OOD[rows]], np.r_[CORRECT, np.zeros(200)]))
    found = pooled_calibration(protocol, ID, CORRECT, OOD, "some")
    assert len(by_hand) == 4
    for key in ("rms", "mad", "soft_f1"):
        assert found[key] == pytest.approx(np.mean([draw[key] for draw in by_hand]), rel=1e-12)


def test_confident_ood_images_are_bad_calibration():
    protocol = Protocol("plain")
    shy, bold = (pooled_calibration(protocol, ID, CORRECT, level * np.ones(300), "some") for level in (0.1, 0.95))
    assert bold["rms"] > 2 * shy["rms"]
    assert bold["mad"] > 2 * shy["mad"]
    assert bold["soft_f1"] < shy["soft_f1"]


def test_too_few_images_for_a_bin_have_no_binned_error():
    found = pooled_calibration(Protocol("plain"), ID[:50], CORRECT[:50], OOD[:40], "some")
    assert found["rms"] is None
    assert found["mad"] is None
    assert 0 < found["soft_f1"] < 1
