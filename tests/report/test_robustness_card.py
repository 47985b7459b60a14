"""What attacks leave, as a run's report shows it: which curves, their figures, and a page that is made again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reader import Reader
from synthetic_evidence import ENERGY, entry, evidence, head, scores

from farout.errors import ConfigError
from farout.report.figures.robustness import DistalRow, distal_figure
from farout.report.figures.style import svg_text
from farout.report.page.html import write_report
from farout.report.page.markup import Inliner
from farout.report.page.rebuild import rebuild_report
from farout.report.page.robustness import attack_figure, comparable, robustness_card

EVIL = '<img src=x onerror="alert(1)">'


def curve(label: str, accuracy: list[float], norm: str = "linf", **attack: Any) -> dict[str, Any]:
    steps = int(label.rpartition("-")[2]) if "-" in label else None
    refinement = None if steps is None else {"steps": steps, "copies": 5, "input_noise": 0.03}
    return {
        "label": label,
        "run": "a run",
        "refinement": refinement,
        "norm": norm,
        "epsilons": [1.0, 8.0] if norm == "linf" else [0.25, 0.5],
        "images": {"n": attack.pop("n", 300), "which": "the first 300 test images of CIFAR-10"},
        "attack": {"name": "PGD", "steps": 40, "restarts": 2, "batch_size": 50, "seed": 1, **attack},
        "clean_accuracy": 0.9,
        "accuracy": accuracy,
        "measured": {"date": "2026-11-22", "device": "CPU (made up)"},
    }


CURVES = [
    curve("JEM-10", [0.8, 0.6]),
    curve("JEM-0", [0.7, 0.4]),
    curve("baseline (CE)", [0.5, 0.0]),
    curve("JEM-0", [0.65, 0.3], "l2"),
]
DISTAL = [{"label": "JEM", "steps": 100, "mean_confidence": [0.1, 0.875]}]


def attacked(folder: Path, curves: list[dict[str, Any]], distal: Any = ()) -> Path:
    (folder / "robustness.json").write_text(json.dumps({"run": "a run", "curves": curves, "distal": distal}))
    return folder


def test_a_run_that_was_not_attacked_has_no_card(tmp_path: Path) -> None:
    assert robustness_card(None, Inliner()) == robustness_card(tmp_path, Inliner()) == ""
    assert robustness_card(attacked(tmp_path, []), Inliner()) == ""


def test_a_figure_and_a_table_a_norm(tmp_path: Path) -> None:
    read = Reader(robustness_card(attacked(tmp_path, CURVES), Inliner()))
    assert read.tags["svg"] == 1 and not [link for link in read.links if not link.startswith("#")]
    assert list(read.tables.values()) == [
        [
            ["accuracy (%)", "no attack", "1", "8"],
            ["baseline (CE)", "90.0", "50.0", "0.0"],
            ["JEM-0", "90.0", "70.0", "40.0"],
            ["JEM-10", "90.0", "80.0", "60.0"],
        ],
        [["accuracy (%)", "no attack", "0.25", "0.5"], ["JEM-0", "90.0", "65.0", "30.0"]],
    ]
    for words in (
        "PGD of 40 steps from 2 random starts, seed 1; the first 300 test images of CIFAR-10.",
        "JEM-k: mean logits of 5 copies of an image with noise 0.03",
        "Measured 2026-11-22, CPU (made up).",
    ):
        assert read.words.count(words) == 1, words
    assert "further curve" not in read.words and "From noise" not in read.words


def test_attacks_that_differ_by_norm_are_told_apart(tmp_path: Path) -> None:
    read = Reader(
        robustness_card(attacked(tmp_path, [CURVES[1], curve("JEM-0", [0.6, 0.3], "l2", steps=7)]), Inliner())
    )
    assert "L-infinity: PGD of 40 steps" in read.words and "L2: PGD of 7 steps" in read.words
    assert "attacks differ by norm" in read.words


def test_only_curves_of_one_attack_stand_side_by_side(tmp_path: Path) -> None:
    newer = curve("JEM-0", [0.2, 0.1])
    other = [curve("JEM-0", [1.0, 1.0], steps=1), curve("JEM-1", [1.0, 1.0], steps=1)]
    found = comparable([*CURVES[:3], *other, newer])
    assert [(each["label"], each["accuracy"]) for each in found] == [
        ("baseline (CE)", [0.5, 0.0]), ("JEM-0", [0.2, 0.1]), ("JEM-10", [0.8, 0.6]),
    ]  # fmt: skip
    page = robustness_card(attacked(tmp_path, [*CURVES, *other, newer]), Inliner())
    assert "3 further curves are in robustness.json" in page


def test_of_attacks_on_as_many_classifiers_the_stronger_then_the_newer() -> None:
    weak, strong = curve("JEM-0", [0.5, 0.5], steps=10), curve("JEM-0", [0.4, 0.4], steps=20)
    for curves in ([weak, strong], [strong, weak]):
        assert comparable(curves) == [strong]
    again = curve("JEM-0", [0.3, 0.3], steps=20, seed=2)
    assert comparable([strong, again]) == [again] and comparable([again, strong]) == [strong]
    few = curve("JEM-0", [0.9, 0.9], steps=100, n=10)
    assert comparable([strong, few]) == [strong]


def test_the_curves_of_the_figure() -> None:
    upper, lower = attack_figure(CURVES, "a run").axes
    assert [np.asarray(each.get_ydata()).tolist() for each in upper.lines] == [[90, 80, 60], [90, 70, 40], [90, 50, 0]]
    assert [np.asarray(each.get_xdata()).tolist() for each in lower.lines] == [[0, 0.25, 0.5]]


def test_distal_adversarials_as_they_were_drawn(tmp_path: Path) -> None:
    start = np.zeros((2, 3, 4, 4), dtype=np.float32)
    rows = [DistalRow("JEM", start + 0.5, np.array([[0.1, 0.1], [0.9, 0.85]], dtype=np.float32))]
    folder = attacked(tmp_path, CURVES, DISTAL)
    (folder / "plots").mkdir()
    (folder / "plots/distal.svg").write_text(svg_text(distal_figure(start, rows, ["cat", "dog"], 0.25)))
    read = Reader(robustness_card(folder, Inliner()))
    assert read.tags["svg"] == 2 and read.tags["image"] >= 1
    assert all(link.startswith(("data:image/png", "#")) for link in read.links)
    assert "JEM 0.875 after 100 steps" in read.words
    (folder / "plots/distal.svg").write_text("no drawing")
    with pytest.raises(ConfigError, match="attack the run again"):
        robustness_card(folder, Inliner())


@pytest.mark.parametrize(
    "damaged",
    [
        b"{", b"[]", b"{}", b"\xff\xfe", b'{"curves": [{}]}', b'{"curves": [3], "distal": []}',
        json.dumps({"curves": [{**CURVES[0], "accuracy": [0.1]}], "distal": []}).encode(),
        json.dumps({"curves": [{**CURVES[0], "accuracy": None}], "distal": []}).encode(),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_line(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "robustness.json").write_bytes(damaged)
    with pytest.raises(ConfigError, match=r"robustness\.json is damaged \(.*\): remove it") as caught:
        robustness_card(tmp_path, Inliner())
    assert "\n" not in str(caught.value)


def test_the_page_made_again_has_the_card_and_keeps_its_pictures(tmp_path: Path) -> None:
    small = scores(30, ("msp",), ("SVHN",))
    facts, made = evidence(small), entry(small, ENERGY)
    write_report(tmp_path / "report.html", head(), [made], facts, run=tmp_path)
    before = Reader((tmp_path / "report.html").read_text("utf-8"))
    assert before.ids["robustness"] == 0 and before.tags["img"] > 6
    (tmp_path / "scores").mkdir()
    for name, by_score in small.items():
        np.savez(tmp_path / f"scores/{name}.npz", allow_pickle=False, **by_score)
    (tmp_path / "results.json").write_text(json.dumps({**head(), "evaluations": [made]}))
    attacked(tmp_path, [{**each, "label": f"{EVIL} {each['label']}"} for each in CURVES])
    page = rebuild_report(tmp_path).read_text("utf-8")
    read = Reader(page)
    assert read.ids["robustness"] == read.ids["mistakes"] == 1
    assert [name for name, n in read.ids.items() if n > 1] == []
    assert read.tags["img"] == before.tags["img"] and "No images were at hand" not in read.words
    assert "<img src=x" not in page and EVIL in read.words
    assert all(link.startswith(("data:", "#")) for link in read.links)
