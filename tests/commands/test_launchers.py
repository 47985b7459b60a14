"""hydra/launcher=joblib and slurm: jobs in processes of their own, which end with the same table, and lose nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from safetensors.torch import load_file

from documents import commands, fences
from fake_slurm import FakeSlurm
from farout.commands import launching, slurm
from farout.commands.cli import main
from farout.config.settings import ROOT
from farout.runs.training import train
from tiny_problem import Done

SWEEP = ["lr=0.1,-1,0.01", "sweep=mine", "evaluate=false"]
LONG = ["max_steps=80", "trainer.log_every=1", "trainer.checkpoint_minutes=60", "evaluate=false", "sweep=mine"]
Sweep = Callable[..., Done]


def of_the_page(launcher: str, *without: str) -> list[str]:
    """The words of the page's command with a launcher, without what a test says otherwise."""
    page = (ROOT / "docs/scale.md").read_text()
    found = [words for _, text in fences(page) for words in commands(text) if f"hydra/launcher={launcher}" in words]
    ((python, script, option, *words),) = [words for words in found if "id_data=digits" in words]
    assert (python, script, option) == ("python", "train.py", "-m")
    return [word for word in words if not word.startswith((*without, "hydra/launcher="))]


@pytest.fixture
def sweep(tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sweep:
    """`python train.py -m hydra/launcher=NAME ...` of the tiny problem."""

    def call(launcher: str, *words: str, task: Callable[..., object] = train) -> Done:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", f"hydra/launcher={launcher}", *tiny, *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main("train", task)
        said = capsys.readouterr()
        return Done(int(str(ended.value.code)), said.out, said.err)

    return call


def states(outputs: Path) -> list[str]:
    """What the sweep's table says of its jobs."""
    lines = (outputs / "sweeps/mine/sweep.csv").read_text().splitlines()
    column = lines[0].split(",").index("state")
    return [line.split(",")[column] for line in lines[1:]]


def until(true: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def test_processes_of_this_machine_do_the_jobs(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("joblib", *of_the_page("joblib", "lr="), *SWEEP)
    assert done.status == 2 and done.err.endswith("error: lr=-1 must be positive\n")
    assert states(tmp_path / "outputs") == ["done", "failed", "done"]
    assert "3 jobs, 2 at a time" in done.out and {"job 0 done", "job 2 done"} <= set(done.out.splitlines())


def test_told_to_end_they_save_their_states(tiny: list[str], tmp_path: Path) -> None:
    words = [*tiny, *LONG, "max_steps=2000", "seed=1,2", "hydra.launcher.n_jobs=2"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=joblib", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: len([*tmp_path.glob("outputs/runs/*/metrics.jsonl")]) == 2)
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 143 and "Traceback" not in err
    assert err.count("the same command goes on from step") == 2
    assert len([*tmp_path.glob("outputs/runs/*/checkpoint.pt")]) == 2
    assert states(tmp_path / "outputs") == ["interrupted", "interrupted"]


def test_a_mistake_of_ours_is_shown_by_the_job_and_named_by_the_command(sweep: Sweep, tmp_path: Path) -> None:
    def mistaken(settings: object) -> None:
        raise ZeroDivisionError("of all things")

    done = sweep("joblib", "hydra.launcher.n_jobs=1", "sweep=mine", "seed=1,2", task=mistaken)
    assert done.status == 2 and "error: ZeroDivisionError: of all things (a mistake of farout's own" in done.err
    assert states(tmp_path / "outputs") == ["failed", "failed"]


@pytest.mark.parametrize(
    ("asked", "devices", "given"),
    [("auto", 1, ["cuda:0", "cuda:1", "cuda:0"]), ("cuda:1", 1, ["cuda:1"] * 3), ("auto", 2, ["auto"] * 3)],
)
def test_devices_go_round(asked: str, devices: int, given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = OmegaConf.create({"trainer": {"device": asked, "devices": devices}})
    assert [launching.device_of_job(config, number) for number in range(3)] == given


@pytest.fixture
def whole(sweep: Sweep, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of an uninterrupted job."""
    assert sweep("basic", *LONG, f"paths.outputs={tmp_path / 'whole'}").status == 0
    (weights,) = tmp_path.glob("whole/runs/*/weights.safetensors")
    return weights


def test_a_preempted_job_is_put_back_and_ends_bit_equal(whole: Path, tiny: list[str], tmp_path: Path) -> None:
    """By submitit's local executor: SIGTERM has the state saved and the work go on, its warning has it put back."""
    pytest.importorskip("submitit", reason="submitit is an extra: pip install farout[slurm]")
    words = ["hydra/launcher=slurm", *of_the_page("slurm", "seed="), tiny[-1], *LONG]
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), "-m", *words], stdout=subprocess.DEVNULL)
    logs, runs = tmp_path / "outputs/sweeps/mine/slurm", tmp_path / "outputs/runs"
    try:
        until(lambda: [*runs.glob("*/metrics.jsonl")])
        (run,) = runs.glob("[!.]*")
        step = int(subprocess.run(["pgrep", "-P", *known(logs)], capture_output=True, text=True).stdout)
        os.kill(step, signal.SIGTERM)
        until((run / "checkpoint.pt").exists)
        saved = last_step(run)
        until(lambda: last_step(run) > saved + 1)
        os.kill(step, signal.SIGUSR2)
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
    (log,) = logs.glob("*_log.out")
    text = log.read_text()
    assert text.count("resumes") == 1 and text.count("trains:") == 1
    assert states(tmp_path / "outputs") == ["done"]
    ours, theirs = load_file(run / "weights.safetensors"), load_file(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def known(logs: Path) -> list[str]:
    """Numbers of the jobs submitted; of the local executor process ids."""
    return list(json.loads((logs / "jobs.json").read_text())["jobs"].values())


def last_step(run: Path) -> int:
    return int(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"])


def test_a_sweep_is_one_array_which_the_same_command_waits_for_again(
    sweep: Sweep, cluster: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = ["hydra.launcher.partition=held", "hydra.launcher.array_parallelism=2", "+hydra.launcher.account=mine"]
    with monkeypatch.context() as impatient:
        impatient.setattr(slurm.time, "sleep", interrupt)
        left = sweep("slurm", *held, *SWEEP)
    assert left.status == 130
    assert "the jobs go on in Slurm" in left.err and "make_table.py sweep=mine" in left.err
    assert [job["state"] for job in cluster.jobs().values()] == ["PENDING"] * 3
    flags = next(iter(cluster.jobs().values()))["flags"]
    assert {key: flags[key] for key in ("partition", "account", "array", "gpus-per-node", "cpus-per-task")} == {
        "partition": "held", "account": "mine", "array": "0-2%2", "gpus-per-node": "1", "cpus-per-task": "4"
    }  # fmt: skip
    assert (flags["signal"], flags["time"], flags["open-mode"], "requeue" in flags) == (
        "USR2@120", "1440", "append", True,
    )  # fmt: skip
    cluster.release()
    done = sweep("slurm", *held, *SWEEP)
    assert len(cluster.jobs()) == 3, "nothing is submitted twice"
    assert done.status == 2 and done.err.endswith("error: lr=-1 must be positive\n")
    assert "#1 is 1_1" in done.out and "job 1 failed: lr=-1 must be positive" in done.out
    assert states(tmp_path / "outputs") == ["done", "failed", "done"]


def interrupt(seconds: float) -> None:
    raise KeyboardInterrupt


def test_a_job_that_leaves_nothing_is_a_line_with_its_log(
    sweep: Sweep, cluster: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submitit.SlurmJob._results_timeout_s", 1)  # for files of slow file systems
    done = sweep("slurm", "hydra.launcher.partition=broken", *SWEEP[1:])
    assert done.status == 2 and re.search(
        r"error: job 1 ended without a result \(.*\), see .*1_0_log\.err\n$", done.err
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["hydra.launcher.partition=closed"], "Slurm refuses the job: sbatch: error: invalid partition specified"),
        (["+hydra.launcher.acount=mine"], "hydra.launcher.acount is no parameter of submitit"),
        (["hydra.launcher.timeout_min=1h"], 'hydra.launcher.*: Parameter "timeout_min"'),
        (["hydra.launcher.cluster=pbs"], "hydra.launcher.cluster=pbs is not there: choose slurm or local"),
    ],
)
def test_what_cannot_be_submitted_is_one_line(
    sweep: Sweep, cluster: FakeSlurm, words: list[str], line: str, tmp_path: Path
) -> None:
    done = sweep("slurm", *words, *SWEEP)
    assert done.status == 2 and done.err.startswith(f"error: {line}") and done.err.count("\n") == 1
    assert not [*tmp_path.glob("outputs/sweeps/mine/jobs")] and not cluster.jobs()


def test_where_there_is_no_slurm_or_no_submitit(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "there is no Slurm here (srun)" in sweep("slurm", *SWEEP).err
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda name: None)
    done = sweep("slurm", *SWEEP)
    assert (done.status, done.err) == (2, "error: hydra/launcher=slurm needs submitit: pip install farout[slurm]\n")


def test_launchers_are_refused_without_a_sweep_or_a_number_of_processes(command: Sweep, sweep: Sweep) -> None:
    done = command("train", "hydra/launcher=slurm")
    assert (done.status, done.err) == (2, "error: hydra/launcher=slurm is about sweeps: add -m\n")
    assert sweep("joblib", "hydra.launcher.n_jobs=0", *SWEEP).err == (
        "error: hydra.launcher.n_jobs=0 is no number of processes\n"
    )
