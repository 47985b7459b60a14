"""`eval.py run=PATH`: defaults from the run's own record, options beside it, and options against it."""

import json
import re
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from farout.config.compose import compose_settings
from farout.errors import ConfigError
from farout.files import save_json
from farout.runs.overrides import compose_evaluation
from farout.runs.run import fingerprint, identity_of, open_run, parent_run, run_of, settings_for
from farout.runs.training import train

CPU = torch.device("cpu")
# As a run of an earlier version has it: no word about how it was evaluated.
DEFAULTS = cache(lambda: compose_evaluation([]))
DIGITS = {"id_data": {"name": "digits", "num_classes": 7, "train_split": "train"}, "outliers": None, "seed": 1}


def of(identity, record, *words):
    """The settings of `eval.py WORDS run=...` for a run that only exists in its record."""
    return settings_for(replace(DEFAULTS(), words=words), SimpleNamespace(identity=identity, record=record))


def test_what_an_older_record_lacks_is_what_its_overrides_would_say():
    by_overrides = compose_evaluation(["method=ce", "scale=smoke", "id_data=digits"])
    by_name = of(DIGITS, {"scale": "smoke"})
    keys = ("id_data", "ood_data", "protocol", "scores", "method_score", "max_eval_images", "max_tune_images", "seed")
    assert {key: getattr(by_name, key) for key in keys} == {key: getattr(by_overrides, key) for key in keys}
    assert (by_name.id_data.corruption_base, by_name.id_data.corruption_split) == ("digits", "train")
    svhn = {**DIGITS, "id_data": {"name": "svhn", "num_classes": 10, "train_split": "train_extra"}}
    assert of(svhn, {}).id_data.corruption_base == "cifar10"
    assert of(DIGITS, {"scale": "imported"}).ood_data.name == "digits"


def test_a_record_at_the_scale_that_was_a_data_set_is_one_at_full_scale():
    """SVHN's schedules were a scale once; what a run of then was trained with may be said again in today's words."""
    asked = compose_settings(["method=oe", "id_data=svhn"])
    identity = {**identity_of(replace(asked, init_from=None), "fp32", CPU), "parent": "0" * 8}
    found = of(identity, {"scale": "svhn"}, "scale=full", "epochs=5", "lr=0.0001")
    assert (found.scale, found.schedule, found.outliers) == ("full", asked.schedule, asked.outliers)
    with pytest.raises(ConfigError, match=r"scale=small is not what .* was trained with \(scale=full\)"):
        of(identity, {"scale": "svhn"}, "scale=small")


def test_typed_options_of_the_evaluation_win():
    protocol = {"name": "plain", "redraws": 3, "bins": 7}
    record = {"evaluation": {"protocol": protocol, "scores": {"knn": {"k": 3}, "msp": {}}, "max_eval_images": 16}}
    known = of(DIGITS, record)
    assert (known.protocol.name, known.protocol.redraws, known.protocol.bins) == ("plain", 3, 7)
    assert [score.record() for score in known.scores] == [
        {"name": "knn", "k": 3, "block_mib": 256, "backend": "auto"},
        {"name": "msp"},
    ]
    assert known.max_eval_images == 16
    typed = of(DIGITS, record, "protocol.bins=9", "score.knn.k=4", "max_eval_images=null", "ood_data=smoke")
    assert (typed.protocol.redraws, typed.protocol.bins, typed.max_eval_images) == (3, 9, None)
    assert (typed.scores[0].arguments["k"], typed.ood_data.name) == (4, "smoke")
    again = of(DIGITS, record, "protocol=oe", "score=energy")
    assert (again.protocol.name, again.protocol.redraws) == ("oe", 10), "a file that is typed is taken as it stands"
    assert [score.name for score in again.scores] == ["energy"]


def test_a_record_gives_values_and_no_classes():
    record = {"evaluation": {"scores": {"msp": {"_target_": "os.system"}, "../x": {}}, "method_score": "../../x"}}
    found = of({**DIGITS, "method": {"name": "ce", "_target_": "os.system"}}, record)
    assert [score.target for score in found.scores] == ["farout.scores.msp.MSP"]
    assert found.method.target == "farout.methods.CrossEntropy"
    hostile = {**DIGITS, "backbone": {"name": "resnet20", "depth": "${oc.env:HOME}"}}
    assert of(hostile, {}).backbone.arguments["depth"] == 20


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A record of an energy run, without weights."""
    words = ["method=energy", "scale=smoke", "id_data=digits", "backbone=resnet20", "m_in=-24", "backbone.width=8"]
    outputs = tmp_path_factory.mktemp("recorded")
    settings = compose_settings([*words, f"paths.outputs={outputs}"])
    run = run_of(settings, CPU)
    run.folder.mkdir(parents=True)
    save_json(run.folder / "run.json", {"run": run.name, "identity": run.identity, "scale": "smoke"})
    return run


AGAINST = {
    "method=ce": "method=ce",
    "m_in=-23": "m_in=-24.0",
    "lr=0.5": "lr=0.00",
    "seed=2": "seed=1",
    "backbone=wrn_40_2": "backbone=resnet20",
    "transform=cifar": "transform=digits",
    "id_data=cifar10": "id_data=digits",
    "outliers=cifar100": "outliers=flower_patches",
    "scale=demo": "scale=smoke",
    "trainer.precision=bf16": "trainer.precision=fp32",
    "init_from=null": "init_from=",
    "pretrain.lr=0.5": "pretrain.lr=0.5",
    "experiment=energy/demo/digits_energy_ft": "backbone.width=8",
}


@pytest.mark.parametrize("word", AGAINST)
def test_options_against_the_run_are_one_line_with_both_values(word, tuned):
    with pytest.raises(ConfigError) as refused:
        settings_for(replace(DEFAULTS(), words=(word,)), tuned)
    text = str(refused.value)
    assert "\n" not in text
    assert word.partition("=")[0] in text or word.startswith("experiment")
    assert AGAINST[word].removeprefix("method=ce") in text
    assert "leave it out" in text


def test_what_the_run_was_trained_with_may_be_said_again(tuned):
    words = ["method=energy", "m_in=-24", "scale=smoke", "id_data=digits", "backbone=resnet20", "backbone.width=8"]
    found = settings_for(compose_evaluation([f"run={tuned.folder}", *words, "trainer.precision=auto"]), tuned)
    assert fingerprint(identity_of(found, "fp32", CPU)) == fingerprint(tuned.identity)


def test_a_run_keeps_how_it_is_evaluated_also_where_it_is_not_yet(settings):
    """A parent that is trained on the way has no command of its own yet."""
    own = settings("method=energy", "protocol=plain", "evaluate=false", "score=energy", "max_steps=1")
    train(own)
    kept = open_run(run_of(own, CPU).folder).record["evaluation"]
    assert (kept["protocol"]["name"], list(kept["scores"]), kept["ood_data"]["name"]) == ("plain", ["energy"], "smoke")
    assert "evaluation" not in parent_run(own, CPU).record


def facts(entry):
    return {key: value for key, value in entry.items() if key not in ("date", "commit")}


def test_named_or_found_a_run_is_evaluated_alike(command, settings, runs):
    """Its scores are tuned on corruptions of its own base, and what trained it says how it is evaluated."""
    own = ["method=ce", "max_steps=3", "ood_data.sets=[gaussian@50]", "max_eval_images=8", "geometry_images=50"]
    own += ["protocol=plain", "protocol.bins=5", "score=[mahalanobis,knn]"]
    own += ["score.mahalanobis.tune=true", "max_tune_images=2", "max_fit_images=60"]
    train(settings(*own, "score.knn.k=3"))
    (name,) = runs()
    folder = run_of(settings(*own), CPU).folder
    assert folder.name == name
    from farout.runs import evaluation

    bare = compose_evaluation([f"run={folder}", "logger=none", f"paths.outputs={folder.parents[1]}"])
    evaluation.evaluate(bare)
    by_overrides, by_name = map(facts, json.loads((folder / "results.json").read_text())["evaluations"])
    assert by_overrides == by_name
    assert (
        by_name["scores"]["mahalanobis"]["tuned_on"]
        == "2 training images and 8 validation corruptions of digits (train)"
    )
    done = command("eval", f"run={folder}", "m_in=-3")
    assert done.status == 2
    assert re.fullmatch(r"error: unknown option m_in \(of method=energy\): method=ce has [^\n]+\n", done.err)
    assert open_run(folder).record["evaluation"]["corruption_base"] == "digits"
