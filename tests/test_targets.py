"""What configuration files may name, and what is imported for it."""

import sys

import pytest

from farout.config.coerce import Component, component
from farout.errors import ConfigError
from farout.methods import CrossEntropy
from farout.scores.msp import MSP
from farout.targets import locate


@pytest.mark.parametrize("target", ["antigravity.webbrowser", "faroutside.x", "os.path.join", "farout", ".x", ""])
def test_what_is_elsewhere_is_not_even_imported(target):
    before = set(sys.modules)
    assert locate(target) is None
    assert set(sys.modules) == before


@pytest.mark.parametrize("target", ["farout.nothing.X", "farout.methods.X", "farout..x"])
def test_a_name_that_farout_does_not_have_is_an_error(target):
    with pytest.raises((ImportError, AttributeError)):
        locate(target)


def test_a_component_knows_its_class_and_files_name_only_ours():
    assert Component("ce", "farout.methods.CrossEntropy", {}).kind is CrossEntropy
    assert component({"_target_": "farout.scores.msp.MSP"}, "score.msp").kind is MSP
    with pytest.raises(ConfigError, match="nothing else is built"):
        component({"_target_": "os.path.join"}, "score.msp")
