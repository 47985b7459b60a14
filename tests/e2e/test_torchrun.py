"""Several processes of torchrun are one command: one run, one voice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = ["method=ce", "id_data=digits", "backbone=resnet20", "scale=smoke", "evaluate=false", "logger=none"]


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launched, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.e2e
def test_torchrun_starts_the_processes(tmp_path: Path) -> None:
    done = torchrun(*WORDS, f"paths.outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" trains: 3 steps") == done.stdout.count(" finished: 3 steps") == 1
    (record,) = tmp_path.glob("runs/*/run.json")
    assert json.loads(record.read_text())["trained"]["conditions"][0]["devices"] == 2
