"""The demonstration, as `make demo` runs it: a problem that softmax does not solve and that fine-tuning does.

With half the network's width and 500 images of each set: half its time. OE gains less at that width than at the demo's.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALLER = ["backbone.width=8", "max_eval_images=500"]


@pytest.mark.e2e
def test_the_demo_trains_evaluates_and_tabulates(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/reproduce.py", "--scale", "demo", "--id", "digits"]
    options = ["--out", str(tmp_path / "t"), f"paths.outputs={tmp_path}", "logger=none", *SMALLER]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("FPR95", "AUROC", "AUPR", "Held-out digits", "energy fine-tuned", "Controls"):
        assert word in done.stdout
    assert done.stdout.count("What this shows, ") == done.stdout.count("What it does not show: ") == 1
    overview = (tmp_path / "index.html").read_text()
    assert overview.count('data-state="evaluated"') == 3 and "Problems" not in overview
    assert (tmp_path / "t/table1.md").read_text().count("|") > 100
    assert len(list(csv.DictReader((tmp_path / "t/table1.csv").open()))) > 50
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/results.json")]
    by_method = {record["identity"]["method"]["name"]: record["evaluations"][0] for record in records}
    assert set(by_method) == {"ce", "oe", "energy"}
    assert min(_auroc(by_method["ce"], "msp").values()) < 0.95  # not a show
    assert all(entry["id"]["accuracy"] > 0.97 for entry in by_method.values())
    assert _fpr95(by_method["energy"], "energy") < 0.75 * _fpr95(by_method["ce"], "energy")
    assert _fpr95(by_method["oe"], "msp") < 0.75 * _fpr95(by_method["ce"], "msp")


def _auroc(evaluation: dict, score: str) -> dict[str, float]:
    return {row["ood"]: row["auroc"] for row in evaluation["rows"] if row["score"] == score}


def _fpr95(evaluation: dict, score: str) -> float:
    return next(mean["fpr95"] for mean in evaluation["means"] if mean["score"] == score)
