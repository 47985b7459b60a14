"""An evaluation is done only while everything that its figures depend on is as it was."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from farout.config.compose import compose_settings
from farout.config.settings import OodData, Settings
from farout.errors import MissingDataError
from farout.files import save_json
from farout.metrics import Resampling
from farout.metrics.bootstrap import interval_of, resampled_metrics
from farout.metrics.protocol import stream_of
from farout.report.marks import MARKS
from farout.report.page.rebuild import last_evaluation, read_evidence
from farout.report.records import read_record
from farout.runs.dependencies import already_evaluated
from farout.runs.evaluation import evaluate
from farout.runs.run import run_of
from farout.runs.training import train

CPU = torch.device("cpu")
OWN = ["method=ce", "ood_data.sets=[gaussian@20,blobs@20]", "max_eval_images=8", "geometry_images=50", "protocol=plain"]
OWN += ["score=[msp,knn]", "score.knn.k=3", "max_fit_images=100", "logger=none"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The outputs of one trained and evaluated run."""
    outputs = tmp_path_factory.mktemp("dependence") / "outputs"
    train(composed(str(outputs)))
    return outputs


@pytest.fixture
def evaluated(trained, tmp_path):
    """The settings of that run with further words, and a copy of it."""
    shutil.copytree(trained, tmp_path / "outputs")
    return partial(composed, str(tmp_path / "outputs")), run_of(composed(str(tmp_path / "outputs")), CPU)


def composed(outputs: str, *words: str) -> Settings:
    found = compose_settings(["scale=smoke", "id_data=digits", "backbone=resnet20", *OWN, *words])
    return replace(found, paths=replace(found.paths, outputs=outputs))


def entries(run):
    return json.loads(run.results.read_text())["evaluations"]


SAME = ["ood_data.sets=[blobs@20]", "trainer.eval_batch_size=7", "max_tune_images=3", "max_fit_images=100"]
SAME += ["score.knn.backend=torch"]
OTHERS = ["score.knn.k=4", "score.knn.block_mib=1", "max_fit_images=90", "max_eval_images=9", "geometry_images=40"]
OTHERS += ["geometry_images=0", "linear_probe=true", "protocol.bins=14", "protocol.seed=1"]
OTHERS += ["ood_data.sets=[gaussian@21]", "score=[knn,msp,energy]"]


def test_what_changes_a_figure_is_evaluated_again(evaluated):
    settings, run = evaluated
    assert already_evaluated(run, settings())
    assert already_evaluated(run, replace(settings(), scores=settings().scores[:1]))
    assert [word for word in SAME if not already_evaluated(run, settings(word))] == []
    assert [word for word in OTHERS if already_evaluated(run, settings(word))] == []
    run.weights.write_bytes(run.weights.read_bytes() + b" ")
    assert not already_evaluated(run, settings()), "other weights"


def test_paired_intervals_are_recorded_and_follow_from_the_scores(evaluated):
    settings, run = evaluated
    wanted = settings("score=[msp,energy,knn]", "protocol.bootstrap=30")
    evaluate(wanted)
    entry = entries(run)[-1]
    paired = entry["paired"]
    assert (paired["level"], paired["resamples"], paired["seed"]) == (0.95, 30, 0)
    found = {(d["first"], d["second"], d["ood"]): d for d in paired["differences"]}
    assert len(found) == 3 * 3  # energy and KNN less softmax, KNN less energy, on two sets and in their mean
    arrays = {name: dict(np.load(run.folder / f"scores/{name}.npz")) for name in ("id", "blobs@20")}
    of_id, of_ood = ([values[score] for score in ("energy", "msp")] for values in arrays.values())
    again = resampled_metrics(
        of_id, of_ood, resampling=Resampling(30, n_ood=len(of_ood[0])), stream=stream_of("blobs@20")
    )
    expect = interval_of(again[:, 0] - again[:, 1], 0.95)
    rows = {row["score"]: row for row in entry["rows"] if row["ood"] == "blobs@20"}
    for key in ("fpr95", "auroc", "aupr"):
        difference, low, high = found["energy", "msp", "blobs@20"][key]
        assert difference == rows["energy"][key] - rows["msp"][key]
        assert (low, high) == expect[key]
    assert already_evaluated(run, wanted)
    known = json.loads(run.results.read_text())
    del known["evaluations"][-1]["paired"]
    save_json(run.results, known)
    assert not already_evaluated(run, wanted), "a record of before there were paired intervals"


def test_records_of_before_are_read_for_what_they_show(evaluated):
    settings, run = evaluated
    record = json.loads(run.results.read_text())
    for entry in record["evaluations"]:
        del entry["depends_on"]
    save_json(run.results, record)
    assert already_evaluated(run, settings())
    for word in ("score.knn.k=4", "max_fit_images=90", "geometry_images=40", "geometry_images=0", "max_eval_images=9"):
        assert not already_evaluated(run, settings(word)), word
    for row in record["evaluations"][0]["rows"]:
        row["sha256"] = "0" * 64
    save_json(run.results, record)
    assert not already_evaluated(run, settings())


def test_the_same_command_notices_a_set_that_grew_and_another_fit(evaluated, tmp_path, capsys, monkeypatch):
    from farout.config import settings as launch_settings

    conf = tmp_path / "conf"
    (conf / "dataset").mkdir(parents=True)
    for file in (launch_settings.ROOT / "conf/dataset").glob("*.yaml"):
        (conf / "dataset" / file.name).write_text(file.read_text())
    source = tmp_path / "mine"
    (source / "x").mkdir(parents=True)
    rng = np.random.default_rng(0)

    def draw(first: int, last: int) -> None:
        for i in range(first, last):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(source / f"x/{i}.png")

    draw(0, 6)
    (conf / "dataset/mine.yaml").write_text(f"title: Mine\nsource: {source}\n")
    real = launch_settings.default_paths
    monkeypatch.setattr(launch_settings, "default_paths", lambda: type(real())(tmp_path / "store", None, conf))
    settings, run = evaluated
    own = replace(settings(), ood_data=OodData("digits", ["mine"]))
    train(own)
    train(own)
    assert "nothing left to do" in capsys.readouterr().out
    draw(6, 10)
    train(own)
    train(replace(own, max_fit_images=50))
    assert [entry["rows"][0]["n_available"] for entry in entries(run)[1:]] == [6, 8, 8]
    assert [entry["scores"]["knn_k3"]["fitted_on"] for entry in entries(run)[1:]] == [100, 100, 50]


def test_arrays_of_scores_are_merged_for_the_same_images_and_never_mixed(evaluated):
    settings, run = evaluated
    read = lambda name: dict(np.load(run.folder / f"scores/{name}.npz"))  # noqa: E731
    first = read("gaussian@20")
    energy = settings("score=[msp,knn,energy]").scores[2:]
    train(replace(settings(), scores=energy))
    both = read("gaussian@20")
    assert both.keys() - {MARKS} == {"msp", "knn_k3", "energy"}
    assert np.array_equal(both["knn_k3"], first["knn_k3"])
    assert len({len(values) for name, values in both.items() if name != MARKS}) == 1
    record = read_record(run.folder)
    (last,) = last_evaluation(record)
    earlier = record["evaluations"][0]
    for entry in (earlier, last):
        found = read_evidence(run.folder / "scores", entry)
        assert {row["score"] for row in entry["rows"]} <= set(found.scores["id"])
    few = settings("max_eval_images=5", "ood_data.sets=[gaussian@20]")
    train(replace(few, scores=few.scores[:1]))
    assert {name: len(values) for name, values in read("gaussian@20").items() if name != MARKS} == {"msp": 5}
    assert set(read("id")) == {"msp", "label", "prediction", "confidence", MARKS}
    for entry in (earlier, last):
        with pytest.raises(MissingDataError, match="holds no scores"):
            read_evidence(run.folder / "scores", entry)
