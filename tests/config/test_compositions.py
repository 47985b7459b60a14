"""Commands of before conf/ had other files compose the same settings and lead to the same runs."""

import json
import re
from dataclasses import MISSING, fields
from typing import Any

import pytest
import torch
from compositions import FILE, commands, facts

from farout.config.compose import compose_settings, parent_settings
from farout.config.renamed import EXPERIMENTS, SCALES
from farout.config.settings import ROOT, IdData, LoggerSettings, OodData, Schedule, Settings, TrainerSettings
from farout.errors import ConfigError
from farout.runs.run import Run, run_in, run_of

KNOWN = json.loads(FILE.read_text())
FOLDER = ROOT / "conf/experiment"


def now(words: str) -> list[str]:
    """The words that say today what `words` said; without a run to start from, which only its owner can name."""
    old = words.removeprefix("experiment=")
    if old != words:
        return [f"experiment={word}" if "=" not in word else word for word in _without_start(EXPERIMENTS[old])]
    return [word for word in words.split() if word != "scale=svhn"]


def _without_start(new: str) -> list[str]:
    return [word for word in new.split() if word != "init_from=RUN"]


def later_defaults(part: str, settings: Settings) -> dict[str, Any]:
    """What a part's class has a default for: where `known` does not say it, it came later, and must stand there."""
    if part == "method":
        return dict(settings.method.kind.later)
    kinds = {"schedule": Schedule, "id_data": IdData, "ood_data": OodData, "trainer": TrainerSettings}
    kind = {**kinds, "logger": LoggerSettings}.get(part)
    own = fields(kind) if kind else ()
    usual = {entry.name: entry.default for entry in own if entry.default is not MISSING}
    usual |= {entry.name: entry.default_factory() for entry in own if entry.default_factory is not MISSING}
    usual.pop("outlier_batch_size", None)  # of which `facts` says nothing where there are no outliers
    return usual


def test_every_command_is_recorded():
    assert set(KNOWN["cases"]) == set(commands(sorted(EXPERIMENTS)))


@pytest.mark.parametrize("words", KNOWN["cases"])
def test_a_command_of_before_means_the_same_run(words):
    name, *numbers = KNOWN["cases"][words]
    settings = compose_settings(now(words))
    found = json.loads(json.dumps(facts(settings)))
    for part, number in zip(KNOWN["parts"], numbers, strict=True):
        known = KNOWN["values"][part][number]
        if part == "scalars":
            known = known | {"scale": SCALES.get(known["scale"], known["scale"])}
        if part == "trainer":
            precision, known = known["precision"], known | {"precision": found[part]["precision"]}
            known |= {"eval_batch_size": None}  # was 500 on every device
        if part == "logger":  # whose file of then had one name, and the project that is now W&B's default
            known = known | {"name": None, known["name"]: True, "project": None}
        assert found[part] == (later_defaults(part, settings) | known if isinstance(known, dict) else known), part
    assert run_then(settings, precision).name == name


def run_then(settings: Settings, precision: str) -> Run:
    """The run, in the precision of then: scale=small asked for bf16 where it has auto now, its parents' too."""
    if precision in ("auto", settings.trainer.precision):
        return run_of(settings, torch.device("cpu"))
    assert (precision, settings.scale) == ("bf16", "small")
    parent = run_in(parent_settings(settings), precision, None) if settings.init_from == "auto" else None
    return run_in(settings, precision, parent)


@pytest.mark.parametrize("old", EXPERIMENTS)
def test_an_old_experiment_is_one_line_with_the_new_name(old):
    new = EXPERIMENTS[old]
    assert (FOLDER / f"{new.split()[0]}.yaml").is_file() and not (FOLDER / f"{old}.yaml").exists()
    with pytest.raises(ConfigError, match=re.escape(f"experiment={old} is now experiment={new}:")):
        compose_settings([f"experiment={old}"])


def test_the_scale_that_was_a_data_set_is_one_line_with_the_new_words():
    with pytest.raises(ConfigError, match=r"^scale=svhn is now id_data=svhn scale=full: use that$"):
        compose_settings(["scale=svhn", "method=oe"])


def test_every_file_is_a_row_of_a_paper_at_a_scale():
    names = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")}
    rows = r"(energy|oe|cider|jem)/(full|medium|small|small_from_trained|demo)/[a-z0-9]+_[a-z_]+"
    assert all(re.fullmatch(rows, name) for name in names)
