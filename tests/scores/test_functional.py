"""Scores as plain functions: the same numbers as the classes and as pytorch-ood, arrays for arrays, one-line errors."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from pytorch_ood.detector import KNN as PeerKNN
from pytorch_ood.detector import EnergyBased, MaxLogit, MaxSoftmax
from tiny_world import World

from farout.errors import ConfigError, FaroutError
from farout.scores import Fitting, Score, functional

CONF = Path(__file__).parents[2] / "conf/score"
NEEDS_THE_NETWORK = {"odin", "px_grad"}
SAME_CLASS = {"knn_k100", "knn_k300"}  # as knn, with another k


def given(world: World) -> dict[str, Any]:
    """What functions take, by the name of the argument."""
    head, train, outputs = world.fitting.head, world.train, world.outputs
    return {
        "logits": outputs.logits,
        "features": outputs.features,
        "weight": head.weight,  # with gradients, as a network's
        "bias": head.bias,
        "train_features": train.features,
        "train_logits": train.logits,
        "train_labels": train.labels,
    }


def call(name: str, values: dict[str, Any], **changed: Any) -> Any:
    """The function with what it asks for, at its own settings."""
    function: Callable[..., Any] = getattr(functional, name)
    return function(*(values[each] for each in inspect.signature(function).parameters if each in values), **changed)


def arrays(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.detach().cpu().numpy() for name, value in values.items()}


def test_every_score_that_needs_no_network_is_a_function() -> None:
    files = {path.stem for path in CONF.glob("*.yaml")} - {"all"} - SAME_CLASS
    assert set(functional.__all__) == files - NEEDS_THE_NETWORK


@pytest.mark.parametrize("name", functional.__all__)
def test_a_function_is_the_score_of_its_name(name: str, world: World) -> None:
    score: Score = instantiate(yaml.safe_load((CONF / f"{name}.yaml").read_text()))
    if score.needs:
        score.fit(Fitting(world.fitting.head, world.train))
    expected, found = score(world.outputs), call(name, given(world))
    assert isinstance(found, torch.Tensor) and found.device == world.outputs.logits.device
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    of_arrays = call(name, arrays(given(world)))
    assert type(of_arrays) is np.ndarray and of_arrays.shape == (41,)
    np.testing.assert_allclose(of_arrays, expected.cpu().numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", functional.__all__)
def test_defaults_are_those_of_the_class(name: str) -> None:
    target = yaml.safe_load((CONF / f"{name}.yaml").read_text())["_target_"].rpartition(".")
    kind = getattr(__import__(target[0], fromlist=[target[2]]), target[2])
    known = inspect.signature(kind).parameters
    for option, parameter in inspect.signature(getattr(functional, name)).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            assert known[option].default == parameter.default, option


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("energy", {"temperature": 10.0}),
        ("gen", {"m": 2}),
        ("gradnorm", {"temperature": 2.0}),
        ("knn", {"k": 3}),
        ("react", {"percentile": 60.0}),
        ("ash", {"variant": "b", "percentile": 70.0}),
        ("scale", {"percentile": 60.0}),
        ("dice", {"p": 20.0}),
        ("vim", {"dimension": 2}),
    ],
)
def test_settings_arrive(name: str, changed: dict[str, Any], world: World) -> None:
    values = given(world)
    assert not torch.allclose(call(name, values, **changed), call(name, values))


@pytest.mark.parametrize("name", functional.__all__)
def test_float32_gives_nearly_the_same(name: str, world: World) -> None:
    """Also with a float64 training set beside it."""
    values = arrays(given(world))
    short = {key: value if key == "train_labels" else value.astype(np.float32) for key, value in values.items()}
    mixed = short | {key: values[key] for key in values if key.startswith("train_f")}
    expected = call(name, values)
    for each in (short, mixed):
        np.testing.assert_allclose(call(name, each), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_pytorch_ood_on_arrays() -> None:
    rng = np.random.default_rng(0)
    logits, train = 4 * rng.normal(size=(30, 8)), rng.normal(size=(200, 8))
    tensor = torch.from_numpy(logits)
    for ours, peer in (
        (functional.msp, MaxSoftmax(None)),
        (functional.max_logit, MaxLogit(None)),
        (functional.energy, EnergyBased(None)),
    ):
        np.testing.assert_allclose(-ours(logits), peer.predict_logits(tensor), rtol=1e-12)
    unit, known = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (logits, train))
    peer = PeerKNN(None, k=7).fit_features(torch.from_numpy(known), torch.zeros(200))
    theirs = peer.predict_features(torch.from_numpy(unit))
    np.testing.assert_allclose(-functional.knn(logits, train, k=7), theirs, rtol=1e-6)


def test_gradients_pass_through_functions_of_logits_and_stop_in_the_others(world: World) -> None:
    logits = world.outputs.logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.energy(logits).sum(), logits)
    torch.testing.assert_close(gradient, logits.softmax(1))
    values = given(world) | {"features": world.outputs.features.clone().requires_grad_()}
    for name in set(functional.__all__) - {"msp", "max_logit", "energy", "uniform_cross_entropy", "gen"}:
        assert not call(name, values).requires_grad, name


@pytest.mark.parametrize("change", ["read-only", "reversed", "big-endian", "transposed"])
def test_arrays_of_any_layout(change: str, recwarn: pytest.WarningsRecorder) -> None:
    plain = np.random.default_rng(0).normal(size=(6, 6))
    other = {
        "read-only": plain.copy(),
        "reversed": plain[::-1].copy()[::-1],
        "big-endian": plain.astype(">f8"),
        "transposed": plain.T.copy().T,
    }[change]
    other.flags.writeable = change != "read-only"
    assert np.array_equal(functional.energy(other), functional.energy(plain))
    assert not recwarn.list


LOGITS, FEATURES, LABELS = np.eye(4), np.eye(4, 6), np.arange(4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: functional.energy(LOGITS[0]), r"logits of shape \(4,\): give 2 dimensions, a row for each image"),
        (lambda: functional.energy(LABELS), r"logits hold torch.int64: give float32 or float64"),
        (lambda: functional.energy(LOGITS.astype(np.float16)), r"logits are torch.float16"),
        (lambda: functional.energy(torch.zeros(2, 2).bfloat16()), r"logits are torch.bfloat16"),
        (lambda: functional.energy(np.array([["a"]])), r"logits hold <U1: give an array or a tensor of numbers"),
        (lambda: functional.knn(FEATURES, LOGITS), r"features have 6 columns and train_features 4"),
        (lambda: functional.knn(FEATURES, FEATURES, 5), r"score knn_k5 has 4 training images"),
        (lambda: functional.rmds(FEATURES, FEATURES, LABELS[:3]), r"outputs of unequal lengths \[3, 4\]"),
        (lambda: functional.rmds(FEATURES, FEATURES, LOGITS), r"train_labels of shape \(4, 4\) and torch.float64"),
        (
            lambda: functional.she(FEATURES, LOGITS, FEATURES, LOGITS[:, :3], LABELS),
            r"logits have 4 columns and train_",
        ),
        (lambda: functional.gradnorm(FEATURES, LOGITS[:2]), r"outputs of unequal lengths \[2, 4\]"),
        (lambda: functional.scale(FEATURES, LOGITS, LABELS), r"features have 6 columns and weight 4"),
        (lambda: functional.scale(FEATURES, FEATURES, np.zeros(3)), r"bias has 3 entries and weight 4 rows"),
        (lambda: functional.vim(FEATURES, FEATURES, np.zeros((1, 4)), FEATURES), r"bias of shape \(1, 4\)"),
    ],
)
def test_what_does_not_fit_is_one_line(wrong: Callable[[], Any], message: str) -> None:
    with pytest.raises(FaroutError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature=0"):
        functional.energy(LOGITS, 0)
    with pytest.raises(ConfigError, match="not a percentage"):
        functional.ash(FEATURES, FEATURES, np.zeros(4), percentile=100)
