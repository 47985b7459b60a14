"""OOD lists with groups: a mean over near and one over far sets, in results, logs and the page; OpenOOD's list."""

import json
from statistics import fmean

import pytest
import yaml

from farout.config.compose import compose_settings
from farout.config.settings import ROOT
from farout.runs.overrides import compose_evaluation
from farout.runs.sink import summary_of
from farout.runs.training import train

SETS = ["china_patches", "hopper_patches", "gaussian@50"]
WORDS = ["method=ce", "max_steps=2", "backbone.width=8", "batch_size=8", "score=[max_logit,energy]"]
WORDS += ["max_eval_images=16", "geometry_images=0", f"ood_data.sets=[{','.join(SETS)}]"]
GROUPS = ["++ood_data.near=[china_patches,svhn]", "++ood_data.far=[hopper_patches,gaussian@50]"]


@pytest.mark.drawn
def test_each_group_has_a_mean_over_those_of_its_sets_that_are_there(settings, runs, tmp_path, capsys):
    train(settings(*WORDS, *GROUPS))
    said = capsys.readouterr().out
    folder = tmp_path / "outputs/runs" / runs()[0]
    (entry, *_) = json.loads((folder / "results.json").read_text())["evaluations"]
    for score in ("max_logit", "energy"):
        own = {row["ood"]: row for row in entry["rows"] if row["score"] == score}
        means = {mean["group"]: mean for mean in entry["group_means"] if mean["score"] == score}
        assert means["near"]["over"] == ["china_patches"] and means["far"]["over"] == SETS[1:]
        for metric in ("fpr95", "auroc"):
            assert means["near"][metric] == own["china_patches"][metric]
            assert means["far"][metric] == pytest.approx(fmean(own[name][metric] for name in SETS[1:]))
    assert "energy: mean over 2 far sets FPR95" in said and "energy: mean over 1 near sets" in said
    assert summary_of(entry)[f"{entry['protocol']['name']}/energy/mean_far/auroc"] == means["far"]["auroc"]
    page = (folder / "report.html").read_text()
    assert "mean, near" in page and "Mean, far: " in page
    again = compose_evaluation([f"run={folder}"])
    assert again.ood_data.groups == {"near": ["china_patches", "svhn"], "far": SETS[1:]}


def test_without_groups_there_is_none(settings, runs, tmp_path):
    train(settings(*WORDS))
    entries = json.loads((tmp_path / "outputs/runs" / runs()[0] / "results.json").read_text())["evaluations"]
    assert not any("group_means" in entry for entry in entries)


@pytest.mark.parametrize("id_data", ["cifar10", "cifar100"])
def test_openoods_list_is_near_and_far(id_data):
    listed = compose_settings([f"id_data={id_data}", "method=ce", "ood_data=openood", "protocol=openood"]).ood_data
    assert sorted(listed.near + listed.far) == sorted(listed.sets)
    other = "cifar100" if id_data == "cifar10" else "cifar10"
    assert set(listed.near) - {id_data} == {other, "tiny_imagenet_no_cifar"}
    assert set(listed.far) == {"mnist", "svhn", "textures", "places365"}


def test_the_groups_of_every_list_are_sets_of_it():
    for path in (ROOT / "conf/ood_data").glob("*.yaml"):
        own = yaml.safe_load(path.read_text())
        assert {*own.get("near", ()), *own.get("far", ())} <= set(own["sets"]), path.name
        assert not set(own.get("near", ())) & set(own.get("far", ())), path.name
