"""`scripts/sensitivity.py` from command to record, figure and page, on digits in a few steps; what it refuses."""

import json

import pytest

from farout.reproduce.sensitivity import chosen, curve
from farout.reproduce.sensitivity_page import drawn, markdown, written
from script_loader import load_script

FEW = ["max_steps=2", "pretrain.max_steps=2", "batch_size=8", "outlier_batch_size=8", "ood_data=smoke"]
FEW += ["max_eval_images=40", "geometry_images=0", "trainer.device=cpu", "logger=none", "backbone.width=2"]
DIGITS = ["--scale", "demo", "--id", "digits", *FEW]
KNOBS = ["--knob", "m_in=-23,-9", "--knob", "max_outlier_images=20"]


@pytest.mark.e2e
def test_one_knob_at_a_time_with_what_the_holdout_chooses(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("farout.runs.evaluation_files._present", lambda *given: [])  # figures are drawn elsewhere
    words = [*DIGITS, *KNOBS, f"paths.outputs={tmp_path / 'o'}", "--out", str(tmp_path / "t"), "--record"]
    assert load_script("sensitivity").main([*words, str(tmp_path / "r")]) == 0
    (file,) = (tmp_path / "r").glob("sensitivity-demo-digits-*.json")
    record = json.loads(file.read_text())
    usual = record["usual"]
    assert usual["max_outlier_images"] is None and usual["m_in"] not in (-23, -9)
    assert [point["changed"] for point in record["points"]] == [
        {},
        {"m_in": -23},
        {"m_in": -9},
        {"max_outlier_images": 20},
    ]
    assert len({point["run"] for point in record["points"]}) == 4
    for knob in usual:
        points = curve(record["points"], knob, usual[knob])
        best = min(points, key=lambda point: point.holdout_fpr95)
        assert record["chosen"][knob] == best.value == chosen(points)
    page = (tmp_path / "t/sensitivity.md").read_text()
    assert page == markdown(record) and page.count("(chosen)") >= 2 and page.count(" * |") + page.count(" * (") == 2
    assert f"| `max_outlier_images` | {written(20)}" in page and "| `max_outlier_images` | all *" in page
    assert (tmp_path / "t/sensitivity.png").read_bytes()[:4] == b"\x89PNG"

    capsys.readouterr()  # again: everything is there
    assert load_script("sensitivity").main([*words, str(tmp_path / "again")]) == 0
    assert "trains:" not in capsys.readouterr().out
    again = json.loads((tmp_path / "again" / file.name).read_text())
    assert again["points"] == record["points"]


def test_curves_share_the_usual_setting_and_average_the_seeds():
    def point(changed, seed, holdout, test):
        figures = {"fpr95": test, "auroc": 0.5, "accuracy": 0.9, "ece": 0.1}
        return {"changed": changed, "seed": seed, "holdout": {"fpr95": holdout}, "test": figures}

    points = [
        point({}, 1, 0.4, 0.2),
        point({}, 2, 0.2, 0.4),
        point({"n": 5}, 1, 0.5, 0.1),
        point({"n": 5}, 2, 0.3, 0.1),
    ]
    points.append(point({"m": 1}, 1, 0.0, 0.0))
    few, everything = curve(points, "n", None)
    assert (few.value, everything.value) == (5, None)
    assert everything.holdout_fpr95 == pytest.approx(0.3) and everything.test_fpr95 == pytest.approx(0.3)
    assert chosen([few, everything]) is None  # the lower on the holdout, although the other is lower on test sets


def test_every_curve_is_drawn_with_its_marks():
    curves = {"usual": {"m_in": -15.0}, "chosen": {"m_in": -23.0}, "points": []}
    for value, test in ((None, 0.3), (-23.0, 0.4)):
        changed = {} if value is None else {"m_in": value}
        figures = {"fpr95": test, "auroc": 0.5, "accuracy": 0.9, "ece": 0.1}
        curves["points"].append({"changed": changed, "seed": 1, "holdout": {"fpr95": test / 2}, "test": figures})
    curves |= {"backbone": "resnet20", "id_data": "cifar10", "scale": "small", "seeds": [1]}
    upper, lower = drawn(curves).axes
    assert list(upper.lines[0].get_ydata()) == [40.0, 30.0] and list(lower.lines[0].get_ydata()) == [90.0, 90.0]
    (ring,) = [line for line in upper.lines if line.get_marker() == "o"]
    assert list(ring.get_xdata()) == [0] and list(ring.get_ydata()) == [20.0]
