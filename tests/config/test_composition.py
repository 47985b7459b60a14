"""What a run says of its origin before it begins, and keeps: files of conf/, and what the command line changed."""

import json
import re
from pathlib import Path

import hydra
import pytest
import torch

from farout.config.compose import _composed, compose_settings, hydra_on_conf
from farout.config.composition import changes_of, composition_record, files_of, summary
from farout.config.settings import ROOT, Composition
from farout.reproduce.command_lines import command_of
from farout.reproduce.trials import Trial
from farout.runs.run import identity_of

QUICK = ["max_steps=1", "evaluate=false"]


def composition(*words: str) -> Composition:
    found = compose_settings(words).composition
    assert found is not None
    return found


def test_files_come_in_the_order_in_which_they_are_read():
    files = files_of(composition("experiment=jem/full/cifar100_jem", "scale=smoke"))
    assert files[0] == "train"
    assert files[-2:] == ["experiment/jem/full/cifar10_jem", "experiment/jem/full/cifar100_jem"]
    assert {"scale/smoke", "schedule/smoke/jem", "backbone/wrn_28_10_jem"} <= set(files)
    assert all((ROOT / f"conf/{file}.yaml").is_file() for file in files)


def test_schedules_show_what_they_are_made_of():
    files = files_of(composition("id_data=svhn", "method=energy"))
    wanted = [
        "schedule/full/ce",
        "schedule/full/energy",
        "data_schedule/svhn/full/oe",
        "data_schedule/svhn/full/energy",
    ]
    assert [file for file in files if "schedule" in file] == wanted


def test_only_what_differs_is_a_change():
    words = ["method=energy", "m_in=-23", "m_out=-7.0", "+pretrain.lr_factor=0.5", "max_tune_images=null", "seed=1"]
    words += ["transform=digits", "transform.std=[0.5,0.5,1]", "logger=none", "paths.outputs='a b'", "hydra.run.dir=."]
    assert changes_of(composition(*words)) == {
        "m_in": (-25.0, -23),
        "pretrain.lr_factor": (None, 0.5),
        "max_tune_images": (500, None),
        "transform.std": ([0.5, 0.5, 0.5], [0.5, 0.5, 1]),
        "paths.outputs": ("outputs", "a b"),
    }


@pytest.mark.parametrize(
    "words",
    [
        ["m_in=-23", "method=energy", "+pretrain.lr=0.1", "~score.msp", "score=[msp,energy]", "lr=${lr_end}"],
        ["backbone.depth=16", "experiment=jem/full/cifar10_jem", "~logger", "transform.std=[1,1,1]", "++seed=3"],
        ["trainer={device:cpu}", "id_data=svhn", "scale=small", "method=oe", "hydra.verbose=true"],
    ],
)
def test_what_is_read_once_gives_what_hydra_composes(words):
    with hydra_on_conf():
        for _ in range(2):  # the first may not change what the second is given
            assert _composed("train", words)[0] == hydra.compose("train", words)
        assert _composed("train", ["method=energy"])[0] == hydra.compose("train", ["method=energy"])


def test_values_that_another_override_has_to_explain():
    assert changes_of(composition("lr_end=${lr}", "logger=wandb"))["lr_end"] == (1e-6, "${lr}")


def test_the_block_is_compact():
    lines = summary("NAME", composition("method=ce", "seed=2", "linear_probe=true")).splitlines()
    assert lines[0] == "NAME"
    assert lines[1].startswith("  conf/   train, transform/cifar, ")
    assert lines[-1] == "  changed seed 1 -> 2, linear_probe false -> true"
    assert len(lines) < 8 and max(map(len, lines)) <= 110
    assert summary("NAME", composition("method=ce", "seed=1")).splitlines()[-1] == "  changed nothing"


def test_a_run_begins_with_it_and_keeps_it(command, runs, tmp_path):
    done = command("train", *QUICK, "method=ce", "seed=3")
    (name,) = runs()
    first, *rest = done.out.splitlines()
    assert (done.status, first) == (0, name)
    assert rest[0].startswith("  conf/   train, ") and "schedule/smoke/ce" in done.out
    assert re.search(r"changed .*max_steps 3 -> 1, evaluate true -> false, seed 1 -> 3", " ".join(done.out.split()))
    kept = json.loads((tmp_path / f"outputs/runs/{name}/run.json").read_text())["composition"]
    assert {"train", "method/ce", "scale/smoke", "id_data/digits"} <= set(kept["files"])
    assert kept["changed"]["seed"] == [1, 3] and "method" not in kept["changed"]
    assert str(tmp_path) not in json.dumps(kept), "where it ran is nobody's business elsewhere"
    assert "conf/" not in command("train", *QUICK, "method=ce", "seed=3").out, "nothing begins"


def test_its_results_keep_it_so_that_the_ledger_knows_the_command(command, runs, tmp_path):
    words = ["method=ce", *QUICK, "evaluate=true", "lr=0.02", "max_eval_images=20", "geometry_images=0"]
    assert command("train", *words).status == 0
    record = json.loads((tmp_path / f"outputs/runs/{runs()[0]}/results.json").read_text())
    made = command_of(Trial(record, record["evaluations"][0])).split()
    assert made[:2] == ["train.py", "method=ce"] and "seed=1" in made
    assert {"max_steps=1", "lr=0.02", "max_eval_images=20"} <= set(made)
    assert not any(word.startswith(("paths.", "logger")) for word in made)


def test_the_command_of_an_experiment_names_the_last_of_its_files():
    asked = composition_record(composition("experiment=jem/full/cifar100_jem", "epochs=3"))
    record = {"composition": asked, "identity": {"seed": 2, "method": {"name": "jem"}}}
    made = command_of(Trial(record, {"protocol": {"name": "jem"}}))
    assert made == "train.py experiment=jem/full/cifar100_jem seed=2 epochs=3"


def test_a_command_says_what_files_have_otherwise_since_the_run_was_trained():
    """Files first, then single values, typed as a user would; what a record lacks came later and stays as it is."""
    settings = compose_settings(["experiment=cider/small/cifar10_cider", "seed=2"])
    identity = {**identity_of(settings, "fp32", torch.device("cpu")), "scale": "small"}
    (words,) = {_typed(identity), _typed({**identity, "method": {"name": "cider"}})}
    assert words == "train.py experiment=cider/small/cifar10_cider seed=2 ood_data=stand_in"
    earlier = {
        **identity,
        "method": {**identity["method"], "proto_m": 0.5},
        "backbone": {**identity["backbone"], "width": 8},
        "transform": {**identity["transform"], "name": "imagenet_views"},
        "schedule": {**identity["schedule"], "epochs": 9},
        "holdout": 0.25,
    }
    made = _typed(earlier).removeprefix(words).split()
    assert made[0] == "transform=imagenet_views", "its own values are compared with that file's"
    assert {"proto_m=0.5", "backbone.width=8", "epochs=9", "holdout=0.25"} <= set(made)
    again = compose_settings([*words.split()[1:], *made])
    assert identity_of(again, "fp32", torch.device("cpu")) == {key: earlier[key] for key in earlier if key != "scale"}


def _typed(identity):
    """The command of a record from before overrides were recorded."""
    entry = {"protocol": {"name": "cider"}, "ood_data": "stand_in"}
    return command_of(Trial({"run": "cider-x-cifar10-0-s2", "identity": identity, "evaluations": [entry]}, entry))


def test_the_command_of_an_experiment_that_is_gone_stays_as_it_was_typed():
    asked = {"files": ["train", "experiment/jem/full/cifar1000_jem"], "changed": {"epochs": [150, 3]}}
    record = {"composition": asked, "identity": {"seed": 2, "method": {"name": "jem"}}}
    made = command_of(Trial(record, {"protocol": {"name": "jem"}}))
    assert made == "train.py experiment=jem/full/cifar1000_jem seed=2 epochs=3"


def test_a_record_from_before_is_read_and_taken_up(command, runs, tmp_path):
    command("train", *QUICK, "method=ce")
    path = Path(tmp_path / f"outputs/runs/{runs()[0]}/run.json")
    record = json.loads(path.read_text())
    del record["composition"]
    path.write_text(json.dumps(record))
    assert command("eval", f"run={path.parent}", "max_eval_images=20", "geometry_images=0").status == 0
    path.write_text(json.dumps({**record, "composition": {"files": "train", "changed": {}}}))
    assert "composition.files is no list" in command("eval", f"run={path.parent}").err


@pytest.mark.parametrize("name", ["train", "eval"])
def test_every_value_is_shown_before_anything_is_done(command, runs, name):
    done = command(name, "method=energy", "m_in=-23", "--cfg", "job", "--resolve")
    assert done.status == 0 and runs() == []
    for line in ("m_in: -23", "m_out: -7.0", "lr: 0.001", "keep: last", "  cache_gib: 4.0", "  positive: id"):
        assert line in done.out.splitlines()
    old = command(name, "experiment=jem/cifar10", "--cfg", "job")
    assert old.err == "error: experiment=jem/cifar10 is now experiment=jem/full/cifar10_jem: use that\n"
