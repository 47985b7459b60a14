"""Every file under conf/ composes into valid settings, and says all that its class wants."""

import json
import re
from dataclasses import MISSING, fields
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from farout.config.coerce import class_of
from farout.config.compose import compose_settings
from farout.config.settings import (
    LATER,
    ROOT,
    Options,
    Paths,
    Schedule,
    TrainerSettings,
    defaults,
    defaults_of,
)

CONF = ROOT / "conf"
ELSEWHERE = (
    "dataset",
    "hydra",
    "schedule",
    "data_schedule",
    "experiment",
)  # not chosen by group=file, or tested on their own


def options(group: str) -> list[str]:
    return sorted(path.relative_to(CONF / group).with_suffix("").as_posix() for path in (CONF / group).rglob("*.yaml"))


REQUIRED = {entry.name for entry in fields(Schedule) if entry.default is MISSING and entry.default_factory is MISSING}
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ELSEWHERE)
HOLDOUT = {"holdout", "holdout_rule"}  # JEM's own, which a scale may do without
SCHEDULES = [path.split("/") for path in options("schedule")]


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in options(group)])
def test_every_file_composes(group, option):
    settings = compose_settings([f"{group}={option}"])
    if group in ("backbone", "transform", "id_data", "ood_data", "protocol"):
        assert getattr(settings, group).name == option
    if group == "logger":
        assert settings.logger.names == (() if option == "none" else (option,))


def values_of(path: str) -> dict[str, Any]:
    """What a schedule says after the files of its `defaults`."""
    own = OmegaConf.to_container(OmegaConf.load(CONF / f"{path}.yaml"))
    bases = [values_of(base.removeprefix("/").removesuffix("@_global_")) for base in own.pop("defaults", [])]
    found = {key: value for base in bases for key, value in base.items()}
    assert not {key for key in own if key in found and own[key] == found[key]}, "said already"
    return found | own


@pytest.mark.parametrize(("scale", "method"), SCHEDULES)
def test_schedules_are_complete_and_chosen_by_scale_and_method(scale, method):
    values = values_of(f"schedule/{scale}/{method}")
    settings = compose_settings([f"scale={scale}", f"method={method}"])
    assert set(values) >= REQUIRED
    assert set(values) <= {field.name for field in fields(Schedule)} | HOLDOUT
    assert ("outlier_batch_size" in values) == settings.uses_outliers
    assert settings.scale == scale
    for key, value in values.items():
        assert getattr(settings if key in HOLDOUT else settings.schedule, key) == value
    assert compose_settings([f"scale={scale}", f"method={method}", "epochs=300"]).schedule.epochs == 300


@pytest.mark.parametrize("path", options("data_schedule"))
def test_a_data_sets_own_schedule_is_what_differs_from_its_scales(path):
    name, scale, method = path.split("/")
    own, usual = values_of(f"data_schedule/{path}"), values_of(f"schedule/{scale}/{method}")
    assert own and all(usual[key] != value for key, value in own.items())
    settings = compose_settings([f"id_data={name}", f"scale={scale}", f"method={method}"])
    for key, value in (usual | own).items():
        assert getattr(settings.schedule, key) == value


def test_no_two_schedules_are_copies_of_each_other():
    own = [OmegaConf.to_container(OmegaConf.load(path)) for path in sorted(CONF.glob("*schedule/**/*.yaml"))]
    said = [json.dumps(values, sort_keys=True) for values in own if set(values) != {"defaults"}]
    assert len(set(said)) == len(said) > 10


def test_a_default_stands_in_the_code_alone():
    """Schedules of several lengths and settings of their papers may repeat one; the roots must not."""
    usual = defaults()
    for path in ("train", "eval", *(f"trainer/{name}" for name in options("trainer"))):
        said = set(OmegaConf.load(CONF / f"{path}.yaml")) & {*usual, *usual["trainer"]}
        assert not said, path
    composed = compose_settings([])
    for name, kind in (("trainer", TrainerSettings), ("paths", Paths), ("schedule", Schedule)):
        own = defaults_of(kind)
        assert {key: getattr(getattr(composed, name), key) for key in own} == own
    assert {key: getattr(composed, key) for key in defaults_of(Options)} == defaults_of(Options) | {"outliers": None}


def test_what_records_leave_out_is_marked_and_has_a_default():
    marked = [entry for kind in (Schedule, Options) for entry in fields(kind) if entry.metadata]
    assert all(entry.metadata == LATER for entry in marked)
    assert {entry.name for entry in marked} == {*defaults_of(Schedule, True), *defaults_of(Options, True)}
    assert {"milestones", "loss_bound", "keep", "holdout_rule"} <= {entry.name for entry in marked}


@pytest.mark.parametrize("scale", options("scale"))
def test_every_scale_has_the_parents_schedule(scale):
    assert [scale, "ce"] in SCHEDULES


@pytest.mark.parametrize("method", options("method"))
def test_method_files_give_exactly_the_classs_knobs(method):
    values = OmegaConf.load(CONF / f"method/{method}.yaml")
    knobs = set(values) - {"method", "init_from", "defaults"} - HOLDOUT
    wanted = signature(class_of(values.method._target_)).parameters
    assert knobs == set(wanted)
    assert values.method.name == method
    # Papers' settings stand in conf/ alone: a default in code could differ from it unseen. What came later than the
    # first runs has one, for those were recorded without it, and conf/ has the same.
    defaults = {name: each.default for name, each in wanted.items() if each.default is not Parameter.empty}
    assert defaults == class_of(values.method._target_).later == {name: values[name] for name in defaults}


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.relative_to(CONF).as_posix())
def test_no_file_holds_a_machines_path(path: Path):
    assert not re.search(r"(?<![\w.])/(home|work|root|tmp)/", path.read_text())
