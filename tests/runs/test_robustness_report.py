"""Attacks on an evaluated run: its report shows them at once, and keeps what else it showed."""

import re
from pathlib import Path

import pytest
import torch

from farout.runs.evaluation_files import renew_report
from farout.runs.run import run_of
from script_loader import load_script

CPU = torch.device("cpu")
RUN = ["method=ce", "backbone=wrn_10_2_jem", "backbone.widen_factor=1"]
SMALL = ["ood_data.sets=[gaussian]", "score=msp", "max_eval_images=20", "geometry_images=0"]
FEW = ["--images", "8", "--steps", "1", "--restarts", "1", "--linf", "8", "--norm", "linf", "--distal-steps", "0"]


def cards(page: Path) -> dict[str, str]:
    """Anchor -> the card's HTML."""
    found = re.findall(r'<section class="card" id="(\w+)">(.*?)</section>', page.read_text("utf-8"), flags=re.DOTALL)
    return dict(found)


@pytest.mark.drawn
def test_the_report_shows_the_attacks_of_an_evaluated_run(command, settings, capsys) -> None:
    assert command("train", *RUN, *SMALL).status == 0
    folder = run_of(settings(*RUN), CPU).folder
    page = folder / "report.html"
    before = cards(page)
    assert "training" in before and "robustness" not in before and "<img" in before["mistakes"]
    assert (folder / "plots/heat_map.png").is_file()
    capsys.readouterr()
    assert load_script("robustness").main([str(folder), *FEW, "--device", "cpu"]) == 0
    assert "report.html" in capsys.readouterr().out
    after = cards(page)
    assert after.keys() - before.keys() == {"robustness"}
    assert after["mistakes"] == before["mistakes"]
    assert "Accuracy under attack" in after["robustness"]


def test_a_report_that_cannot_be_made_again_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert renew_report(tmp_path) == []
    assert capsys.readouterr().out == ""
    (tmp_path / "report.html").write_text("as it was")
    assert renew_report(tmp_path) == []
    assert "note: report.html stays as it was" in capsys.readouterr().out
    assert (tmp_path / "report.html").read_text() == "as it was"
