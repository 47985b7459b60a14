"""Values become the types that the code declares, or the command says which it wants."""

import math
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farout.config.coerce import build_dataclass, coerce, component
from farout.errors import ConfigError

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers())
def test_integers_pass_exactly(value):
    assert coerce(value, int, "k") == value
    assert type(coerce(value, int, "k")) is int


@given(st.integers(-(2**53), 2**53))
def test_spellings_of_a_whole_number_are_one(value):
    for spelling in (value, float(value), str(value), f"{value}.0"):
        result = coerce(spelling, int, "k")
        assert result == value
        assert type(result) is int
        number = coerce(spelling, float, "k")
        assert number == value
        assert type(number) is float


@given(FINITE)
def test_floats_pass_and_fractions_are_no_integers(value):
    assert coerce(value, float, "k") == value
    assert coerce(str(value), float, "k") == value
    if value != int(value):
        with pytest.raises(ConfigError, match="not a whole number"):
            coerce(value, int, "k")


@given(st.text())
def test_text_is_never_a_wrong_number_or_a_crash(text):
    for kind in (int, float):
        try:
            value = coerce(text, kind, "k")
        except ConfigError as error:
            assert str(error).startswith("k")
        else:
            assert value == float(text)
    if text.strip():
        assert coerce(text, str, "k") == text


@pytest.mark.parametrize("kind", [int, float, str, bool, Literal["a"], list[int], dict])
@pytest.mark.parametrize("blank", [None, "", "  ", "\t"])
def test_blanks_are_rejected(kind, blank):
    with pytest.raises(ConfigError, match="blank"):
        coerce(blank, kind, "k")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", True, [1], {"a": 1}, "ten"])
@pytest.mark.parametrize("kind", [int, float])
def test_no_numbers(value, kind):
    with pytest.raises(ConfigError, match=r"^k=.* is not a"):
        coerce(value, kind, "k")


@pytest.mark.parametrize("value", [0, 1, "true", "False", "yes", 1.0, [True]])
def test_only_true_and_false_are_bool(value):
    assert coerce(True, bool, "k") is True
    with pytest.raises(ConfigError, match="true or false"):
        coerce(value, bool, "k")


def test_optional_none_and_values():
    assert coerce(None, int | None, "k") is None
    assert coerce("3", int | None, "k") == 3
    with pytest.raises(ConfigError, match="blank"):
        coerce("", int | None, "k")


def test_literals_are_matched_with_their_type():
    kind = Literal["auto", True, False]
    assert coerce("auto", kind, "k") == "auto"
    assert coerce(True, kind, "k") is True
    for value in (1, 0, "True", "aut"):
        with pytest.raises(ConfigError, match="choose from auto, True, False"):
            coerce(value, kind, "k")
    with pytest.raises(ConfigError, match=r"did you mean auto\?"):
        coerce("aut", kind, "k")


def test_lists():
    assert coerce(["1", 2.0], list[int], "k") == [1, 2]
    with pytest.raises(ConfigError, match=r"k\[1\]=1.5 is not a whole number"):
        coerce([1, 1.5], list[int], "k")
    with pytest.raises(ConfigError, match=r"write k=\[a,b\]"):
        coerce("svhn", list[str], "k")


@dataclass
class Example:
    epochs: int
    name: str = "x"


def test_dataclasses_know_their_fields():
    assert build_dataclass(Example, {"epochs": "3"}, "part") == Example(3)
    with pytest.raises(
        ConfigError, match=r"unknown option part.epoch \(did you mean epochs\?\): part has epochs, name"
    ):
        build_dataclass(Example, {"epoch": 3}, "part")
    with pytest.raises(ConfigError, match=r"part\.epochs is missing"):
        build_dataclass(Example, {}, "part")
    with pytest.raises(ConfigError, match="part=3 is not a group"):
        build_dataclass(Example, 3, "part")


def test_components_know_their_classes_arguments():
    values = {"name": "cifar_resnet", "_target_": "farout.backbones.cifar_resnet.CifarResNet", "depth": "20"}
    built = component(values, "backbone", supplied=("num_classes",))
    assert built.record() == {"name": "cifar_resnet", "depth": 20}
    assert built.build(num_classes=3).num_classes == 3
    with pytest.raises(ConfigError, match=r"unknown option backbone\.num_classes"):
        component({**values, "num_classes": 4}, "backbone", supplied=("num_classes",))
    with pytest.raises(ConfigError, match="names no class"):
        component({"_target_": "farout.nothing.Here"}, "backbone")
