"""debug=NAME: short runs that look for mistakes: each really runs, and none is taken for a real one."""

import json
from pathlib import Path

import pytest
import torch

from farout.config.compose import compose_settings
from farout.config.settings import ROOT
from farout.engine.batches import repeated
from farout.methods import Batch
from farout.methods.cross_entropy import CrossEntropy
from farout.runs.run import run_of

PRESETS = sorted(path.stem for path in (ROOT / "conf/debug").glob("*.yaml"))
CPU = torch.device("cpu")
EXPERIMENTS = [["experiment=jem/full/cifar10_jem"], ["experiment=cider/full/cifar10_cider_code"]]
ENERGY = ["method=energy", "id_data=digits", "scale=smoke", "backbone=resnet20"]


def test_the_presets_are_those_that_people_know():
    assert PRESETS == ["default", "fdr", "limit", "overfit", "profile"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("words", [ENERGY, *EXPERIMENTS], ids=" ".join)
def test_in_a_folder_of_its_own_under_names_of_its_own(preset, words):
    real, debug = compose_settings(words), compose_settings([*words, f"debug={preset}"])
    assert debug.paths.outputs == "outputs/debug"
    assert debug.logger.names == ()
    assert debug.method == real.method and debug.backbone == real.backbone
    assert run_of(debug, CPU).name != run_of(real, CPU).name, "also in one folder it must not be found in its place"


@pytest.mark.parametrize("preset", PRESETS)
def test_runs_parent_and_child(preset, command, runs, tmp_path):
    less = ["pretrain.max_steps=1", "max_eval_images=20", "max_fit_images=100", "geometry_images=0"]
    less += ["max_steps=2"] if preset in ("limit", "overfit") else []
    done = command("train", *ENERGY, f"debug={preset}", *less)
    assert done.status == 0, done.err
    assert len(runs()) == 2
    child = next(tmp_path.glob("outputs/runs/energy-*"))
    assert (child / "weights.safetensors").exists()
    assert not (child / "wandb").exists()
    assert (child / "results.json").exists() == (preset in ("fdr", "limit"))
    assert (child / "profile").exists() == (preset == "profile")


def test_a_batch_over_and_over_is_learnt_by_heart(command, tmp_path):
    done = command("train", "method=ce", "debug=overfit", "max_steps=60")
    assert done.status == 0, done.err
    averages = _losses(next(tmp_path.glob("outputs/runs/*")))
    assert len(averages) == 60
    losses = [(new - 0.8 * old) / 0.2 for old, new in zip([0.0, *averages], averages, strict=False)]
    assert losses[0] > 1 and max(losses[-10:]) < 0.05 * losses[0]


def _losses(folder: Path) -> list[float]:
    return [json.loads(line)["train/total"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_repeated_batches_come_in_turn_and_none_means_all():
    def batches(step: int) -> dict[str, Batch]:
        return {"labelled": Batch(torch.tensor([float(step)]))}

    assert [repeated(batches, 2)(step)["labelled"].images.item() for step in range(5)] == [0, 1, 0, 1, 0]
    assert repeated(batches, None) is batches


def test_a_profile_is_a_trace_and_a_table(command, tmp_path):
    done = command("train", "method=ce", "debug=profile")
    assert done.status == 0, done.err
    folder = next(tmp_path.glob("outputs/runs/*/profile"))
    names = {event.get("name") for event in json.loads((folder / "trace.json").read_text())["traceEvents"]}
    assert {"aten::conv2d", "Optimizer.step#SGD.step"} <= names
    steps = {name for name in names if str(name).startswith("ProfilerStep#")}
    assert len(steps) == 4
    assert "aten::" in (folder / "operations.txt").read_text()
    assert f"{folder / 'trace.json'}" in done.out


def test_training_that_is_too_short_for_a_profile_says_so(command, tmp_path):
    done = command("train", "method=ce", "debug=profile", "max_steps=2")
    assert done.status == 0, done.err
    assert "nothing was profiled" in done.out
    assert not list(tmp_path.glob("outputs/runs/*/profile"))


@pytest.mark.parametrize(("words", "expected"), [(["debug=default"], True), ([], False)])
def test_gradients_are_watched_while_training_and_not_afterwards(words, expected, command, monkeypatch):
    seen = set()
    plain = CrossEntropy.loss

    def spy(self, model, batches):
        seen.add(torch.is_anomaly_enabled())
        return plain(self, model, batches)

    monkeypatch.setattr(CrossEntropy, "loss", spy)
    assert command("train", "method=ce", "max_steps=2", "evaluate=false", *words).status == 0
    assert seen == {expected}
    assert not torch.is_anomaly_enabled()


def test_overfitting_is_part_of_what_a_run_is(settings):
    plain, other = settings("method=ce"), settings("method=ce", "overfit_batches=1")
    assert run_of(other, CPU).name != run_of(plain, CPU).name
    assert "overfit_batches" not in plain.schedule.record()


@pytest.mark.parametrize("path", sorted((ROOT / "conf/debug").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_header_gives_the_command(path):
    assert f"python train.py debug={path.stem} " in path.read_text()
