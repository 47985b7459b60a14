"""Evaluations share forward passes, through the cache also with each other; scores get what they need and no more."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from farout.config.coerce import Component
from farout.errors import FaroutError
from farout.metrics import ReliabilityCurve
from farout.runs import scoring
from farout.runs.evaluation import evaluate
from farout.runs.inputs import ImageSets
from farout.runs.run import Run, open_run, run_of
from farout.runs.scoring import Predictor, ready_scores
from farout.runs.training import train
from farout.scores import Fitting, ImageScore, Outputs, Score

CPU = torch.device("cpu")
HERE = __name__


class NearestMean(Score):
    """Fits: minus the distance to the mean training feature."""

    name, needs = "nearest_mean", ("train", "head")

    def fit(self, fitting: Fitting) -> None:
        assert fitting.train is not None
        assert torch.allclose(fitting.head(fitting.train.features), fitting.train.logits, atol=1e-5)
        self.mean = fitting.train.features.mean(0)

    def __call__(self, outputs: Outputs) -> torch.Tensor:
        return -(outputs.features - self.mean).norm(dim=1)

    def facts(self):
        return {"mean_norm": float(self.mean.norm())}


class Sloped(ImageScore):
    """Needs images: largest logit after a step of `epsilon` along its gradient; tunes that where asked."""

    def __init__(self, epsilon: float = 0.0, tune: bool = False) -> None:
        self.name, self.epsilon, self.tune = "sloped", epsilon, tune

    def on_images(self, network, images, std):
        moving = images.clone().requires_grad_(True)
        top = network.classify(network.features(moving)).amax(1)
        (slope,) = torch.autograd.grad(top.sum(), moving)
        moved = images + self.epsilon * slope.sign() / std.view(1, 3, 1, 1)
        return network.classify(network.features(moved)).amax(1)

    def candidates(self):
        return [Sloped(epsilon) for epsilon in (0.5, 0.0, 0.002)] if self.tune else []

    def facts(self):
        return {"epsilon": self.epsilon}


def part(kind, **values):
    return Component(kind.__name__, f"{HERE}.{kind.__name__}", values)


@pytest.fixture
def trained(settings):
    """Settings of a finished run and the run."""

    def get(*words):
        wanted = settings("method=ce", "evaluate=false", "ood_data=smoke", *words)
        train(wanted)
        return wanted, run_of(wanted, CPU)

    return get


def latest(run: Run) -> dict:
    return json.loads(run.results.read_text())["evaluations"][-1]


def test_a_second_evaluation_needs_no_network(trained, settings, monkeypatch):
    wanted, run = trained()
    evaluate(wanted)
    before = latest(run)
    monkeypatch.setattr(Run, "model", lambda *_: pytest.fail("the network was loaded"))
    evaluate(settings("method=ce", "ood_data=smoke", "score=[energy,max_logit,uniform_cross_entropy]"))
    after = latest(run)
    assert [row["score"] for row in after["means"]] == ["energy", "max_logit", "uniform_cross_entropy"]
    same = [[row for row in entry["rows"] if row["score"] == "energy"] for entry in (before, after)]
    assert same[0] == same[1]


@contextmanager
def images_through_stems():
    """The images that pass through a network's first convolution, batch by batch, whoever sends them."""
    seen = []

    def look(module, inputs):
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3:
            seen.append(len(inputs[0]))

    hook = register_module_forward_pre_hook(look)
    try:
        yield seen
    finally:
        hook.remove()


ALL_FROM_OUTPUTS = (
    "msp,max_logit,energy,uniform_cross_entropy,mahalanobis,knn,react,ash,dice,vim,gen,gradnorm,rmds,she,scale"
)


@pytest.mark.parametrize("scores", ["mahalanobis", ALL_FROM_OUTPUTS])
def test_an_image_goes_through_the_network_once_whatever_the_number_of_scores(trained, settings, scores):
    _, run = trained("trainer.cache_gib=0")
    words = ("max_eval_images=20", "geometry_images=0", "max_fit_images=100", "trainer.eval_batch_size=16")
    with images_through_stems() as seen:
        evaluate(settings("method=ce", "ood_data=smoke", "trainer.cache_gib=0", f"score=[{scores}]", *words))
    entry = latest(run)
    assert len(entry["means"]) == len(scores.split(","))
    sets = {row["ood"]: row["n_available"] for row in entry["rows"]}
    assert len(sets) >= 2
    controls = 2 * entry["id"]["n"]  # the ID images resampled, and as JPEG
    assert sum(seen) == entry["id"]["n"] + controls + sum(sets.values()) + 100
    assert max(seen) == 16


class Beside(Score):
    """Ends only when the network is at a later set: a set's scores must not wait for each other."""

    name = "beside"
    passes: ClassVar[threading.Semaphore] = threading.Semaphore(0)
    met: ClassVar[list[bool]] = []

    def __call__(self, outputs: Outputs) -> torch.Tensor:
        self.met.append(self.passes.acquire(timeout=5))
        return outputs.logits.amax(1)


def test_scores_of_a_set_are_worked_out_while_the_network_is_at_the_next(trained, monkeypatch):
    """No set's scores are there before the next forward pass has begun, and that pass does not wait for them."""
    wanted, run = trained("trainer.cache_gib=0", "max_eval_images=20", "geometry_images=0")
    real, sets = scoring.collect, []

    def collect(*given):
        sets.append(given[2].name)
        if len(sets) > 1:  # of ID, the first, there are no scores before
            Beside.passes.release()
        if sets[-1] == "jpeg":  # the last
            Beside.passes.release()
        return real(*given)

    Beside.met.clear()
    monkeypatch.setattr(scoring, "collect", collect)
    evaluate(replace(wanted, scores=(part(Beside),)))
    assert len(Beside.met) == len(sets) >= 5 and all(Beside.met)
    assert [row["score"] for row in latest(run)["means"]] == ["beside"]


def test_an_error_in_a_score_is_what_it_is_and_nothing_is_written(trained, monkeypatch):
    wanted, run = trained("max_eval_images=20")
    monkeypatch.setattr(Beside, "__call__", lambda *_: (_ for _ in ()).throw(FaroutError("no such score")))
    with pytest.raises(FaroutError, match=r"^no such score$"):
        evaluate(replace(wanted, scores=(part(Beside),)))
    assert not run.results.exists()


def test_without_a_cache_nothing_is_left(trained, tmp_path):
    wanted, run = trained("trainer.cache_gib=0")
    evaluate(wanted)
    assert latest(run)["rows"]
    assert not list((tmp_path / "outputs").glob("cache/*"))


def test_scores_are_fitted_on_what_the_run_trained_on(trained):
    wanted, run = trained("holdout=0.25", "max_fit_images=100")
    predictor = Predictor(run, replace(wanted, scores=(part(NearestMean),)), CPU)
    scores, facts = ready_scores(predictor)
    images = predictor.train_images()
    assert len(images) == 100
    expected = predictor.outputs(images).features.mean(0)
    assert torch.equal(scores["nearest_mean"].mean, expected)
    assert facts["nearest_mean"] == {"mean_norm": float(expected.norm()), "fitted_on": 100}
    everything = Predictor(run, replace(wanted, max_fit_images=None), CPU).train_images()
    held, source = Predictor(run, replace(wanted, max_tune_images=None), CPU).selection_images()
    assert source == "holdout"
    rows = {each.numpy().tobytes() for each in everything.images}
    assert not any(each.numpy().tobytes() in rows for each in held.images)


def test_image_scores_and_tuning(trained):
    wanted, run = trained("holdout=0.25", "max_eval_images=20", "max_tune_images=16")
    tuned = replace(wanted, scores=(part(Sloped, tune=True),))
    evaluate(tuned)
    facts = latest(run)["scores"]["sloped"]
    assert facts["tuned_on"] == "16 holdout images and 8 validation corruptions of digits (train)"
    by_hand = []
    for epsilon in (0.5, 0.0, 0.002):
        predictor = Predictor(run, replace(tuned, scores=(part(Sloped, epsilon=epsilon),)), CPU)
        by_hand.append(_selection(predictor, Sloped(epsilon), tuned))
    assert facts["selection_fpr95"] == min(by_hand)
    assert facts["epsilon"] == (0.5, 0.0, 0.002)[by_hand.index(min(by_hand))]


def _selection(predictor, score, settings):
    from farout.metrics import detection_metrics

    images, _ = predictor.selection_images()
    values = [
        predictor.values({"s": score}, each)["s"]
        for each in (images, *ImageSets(settings).corruption_sets(16).values())
    ]
    rates = [detection_metrics(values[0], ood)["fpr95"] for ood in values[1:]]
    return sum(rates) / len(rates)


def test_an_image_score_without_a_step_equals_its_outputs(trained):
    wanted, run = trained("max_eval_images=20")
    predictor = Predictor(open_run(run.folder), wanted, CPU)
    images, _ = predictor.selection_images()
    values = predictor.values({"sloped": Sloped(0.0)}, images)["sloped"]
    assert torch.allclose(torch.from_numpy(values).float(), predictor.outputs(images).logits.amax(1), atol=1e-5)


def test_calibration_is_recorded_and_its_temperature_is_held_out(trained):
    wanted, run = trained("max_eval_images=150")
    evaluate(wanted)
    entry = latest(run)
    assert entry["calibration"]["temperature"] is None, "nothing was held out"
    assert entry["calibration"]["id"]["ece"] == entry["id"]["ece"]
    assert ReliabilityCurve.of_bins(entry["id"]["reliability"]).error == pytest.approx(entry["id"]["ece"], abs=1e-6)
    assert len(entry["id"]["reliability"]["count"]) == entry["id"]["ece_bins"]
    assert {row["ood"] for row in entry["calibration"]["rows"]} == {row["ood"] for row in entry["rows"]}
    held, run = trained("max_eval_images=150", "holdout=0.25")
    evaluate(held)
    entry = latest(run)
    assert 0.2 <= entry["calibration"]["temperature"] <= 5
    assert entry["calibration"]["temperature"] != 1
    assert entry["calibration"]["id"]["ece"] != entry["id"]["ece"]
    assert all(row["rms"] > 0 for row in entry["calibration"]["rows"])
