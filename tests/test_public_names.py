"""What `farout` offers: each name is there, documented and loaded only when it is asked for."""

import ast
import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import farout
from farout.scores import functional

ROOT = Path(__file__).resolve().parents[1]
HOME = {name: module for module, names in farout._MODULES.items() for name in names}
NAMES = [name for name in farout.__all__ if name != "__version__"]


def test_dir_shows_exactly_the_public_names():
    assert dir(farout) == sorted(farout.__all__)
    assert {"Detector", "FaroutError", "detection_metrics", "langevin_chain", "WideResNet"} <= set(dir(farout))


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_says_what_it_is(name):
    found = getattr(farout, name)
    assert found.__name__ == name and found.__module__ == HOME[name]
    own = found.__dict__.get("__doc__") if inspect.isclass(found) else found.__doc__
    assert own and not own.startswith(f"{name}("), "a dataclass writes one itself, which explains nothing"
    assert name in (farout.__doc__ or ""), "help(farout) lists it"


@pytest.mark.parametrize("name", functional.__all__)
def test_each_score_function_is_there_and_says_what_it_is(name):
    found = getattr(functional, name)
    assert found.__name__ == name and found.__module__ == "farout.scores.functional"
    assert found.__doc__ and "(N,)" in found.__doc__, "shapes"
    part = (farout.__doc__ or "").partition("from farout.scores.functional import")[2].partition("\n\n")[0]
    assert name in re.split(r"[\s,]+", part), "help(farout) lists it, where it says to import it from"


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "src/farout/__init__.py").read_text())
    (hidden,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in hidden.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == HOME
    assert set(seen) == set(NAMES)


def test_a_star_import_and_an_unknown_name():
    space: dict = {}
    exec("from farout import *", space)
    assert set(NAMES) <= set(space)
    with pytest.raises(AttributeError, match="no attribute 'Detecter'"):
        farout.Detecter  # noqa: B018


def test_help_shows_the_public_functions():
    shown = pydoc.plain(pydoc.render_doc(farout))
    for name in ("detection_metrics(", "class Detector", "langevin_chain(", "uniform_cross_entropy("):
        assert name in shown, name


def test_importing_and_listing_loads_nothing_heavy_and_an_error_no_torch():
    program = """
import sys, farout
dir(farout)
farout.FaroutError
heavy = {"torch", "numpy", "hydra", "matplotlib", "sklearn"} & sys.modules.keys()
assert not heavy, heavy
farout.detection_metrics
"""
    subprocess.run([sys.executable, "-c", program], check=True)
