"""Campaigns in slices: the same networks as in one go, carried from machine to machine by the state folder alone."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

import farout.engine.fit
import farout.engine.tar_parts
import farout.reproduce.costs
import farout.reproduce.stages
import farout.runs.robustness
from fake_slurm import FakeSlurm
from farout.commands.campaign import TABLES
from farout.config.settings import ROOT
from farout.reproduce.rows import TableRequest, rows_of
from script_loader import load_script
from state_dicts import tensors_equal

SMALL = ["--table", "demo", "--id", "digits", "--scale", "smoke"]
NET = ["backbone=resnet20", "trainer.device=cpu", "max_steps=4", "pretrain.max_steps=4"]
OVERRIDES = [*NET, "logger=none", "score=[msp]", "max_eval_images=16", "geometry_images=20"]
OVERRIDES += ["trainer.eval_batch_size=16"]  # what a forecast is timed with
ROWS = ["--rows", "softmax", "energy_ft"]
LIMITLESS = ["--minutes", "600"]

Slice = Callable[..., int]


@dataclass
class Asked:
    """What the command said."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("campaign")


@pytest.fixture(scope="module")
def in_one_go(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of an uninterrupted campaign."""
    outputs = tmp_path_factory.mktemp("whole")
    assert script.main([*SMALL, *ROWS, *LIMITLESS, "--outputs", str(outputs), *OVERRIDES]) == 0
    return outputs


@pytest.fixture
def clock(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Time that passes by a second whenever somebody looks at it, so that budgets end after so many steps."""
    now = iter(range(10**9))
    fake = SimpleNamespace(monotonic=lambda: float(next(now)))
    for module in (script, farout.reproduce.stages, farout.reproduce.costs, farout.engine.fit):
        monkeypatch.setattr(module, "time", fake)
    yield


def weights(outputs: Path) -> dict[str, Path]:
    return {path.parent.name: path for path in sorted((outputs / "runs").glob("*/weights.safetensors"))}


def results_of(outputs: Path) -> dict[str, object]:
    files = sorted((outputs / "runs").glob("*/results.json"))
    return {file.parent.name: [e["rows"] for e in json.loads(file.read_text())["evaluations"]] for file in files}


def assert_same(outputs: Path, whole: Path) -> None:
    ours, expected = weights(outputs), weights(whole)
    assert ours.keys() == expected.keys() and len(ours) == 2
    for name, path in ours.items():
        assert tensors_equal(load_file(path), load_file(expected[name])), name
    assert results_of(outputs) == results_of(whole)


def test_slices_on_two_machines_equal_one_go(
    script: ModuleType, in_one_go: Path, clock: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = [tmp_path / "one", tmp_path / "two"]
    state = tmp_path / "state"
    codes, paused = [], 0
    while not codes or codes[-1] == 3:
        assert len(codes) < 7, "each slice goes on from the other machine's"
        outputs = ["--outputs", str(machines[len(codes) % 2])]
        codes.append(script.main([*SMALL, *ROWS, "--minutes", "0.09", "--state", str(state), *outputs, *OVERRIDES]))
        paused += "budget is spent at step" in capsys.readouterr().out
    assert codes == [3] * (len(codes) - 1) + [0]
    assert paused >= 2, "no training was interrupted: the test shows nothing"
    assert_same(machines[(len(codes) - 1) % 2], in_one_go)
    packed = json.loads((state / "campaign.json").read_text())
    assert all(stage["done"] for stage in packed["progress"]) and len(packed["progress"]) == 4


def test_state_is_cut_into_parts_and_continues_elsewhere(
    script: ModuleType, in_one_go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farout.engine.tar_parts, "PART_BYTES", 100_000)
    state, first, second = tmp_path / "state", tmp_path / "one", tmp_path / "two"
    command = [*SMALL, *LIMITLESS, "--state", str(state)]
    assert script.main([*command, "--rows", "softmax", "--outputs", str(first), *OVERRIDES, "evaluate=false"]) == 0
    sizes = [path.stat().st_size for path in state.glob("campaign.tar.*")]
    assert len(sizes) > 5 and max(sizes) == 100_000
    assert script.main([*command, *ROWS, "--outputs", str(second), *OVERRIDES]) == 0
    assert_same(second, in_one_go)


def test_what_is_further_here_is_not_overwritten(script: ModuleType, in_one_go: Path, tmp_path: Path) -> None:
    state, outputs = tmp_path / "state", tmp_path / "outputs"
    command = [*SMALL, *LIMITLESS, "--state", str(state), "--outputs", str(outputs)]
    assert script.main([*command, "--rows", "softmax", *OVERRIDES, "evaluate=false"]) == 0
    assert script.main([*command[:-4], "--outputs", str(outputs), "--rows", "softmax", *OVERRIDES]) == 0
    (results,) = (outputs / "runs").glob("*/results.json")
    before = results.read_bytes(), results.stat().st_mtime_ns
    assert script.main([*command, "--dry-run", "--rows", "softmax", *OVERRIDES]) == 0
    assert (results.read_bytes(), results.stat().st_mtime_ns) == before
    # nor does a slice on one row forget the other rows that the folder carries
    assert script.main([*command, "--rows", "oe_ft", *OVERRIDES, "evaluate=false"]) == 0
    assert len(json.loads((state / "campaign.json").read_text())["runs"]) == 2


def test_a_damaged_state_stops_the_slice_in_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, first, second = tmp_path / "state", tmp_path / "one", tmp_path / "two"
    command = [*SMALL, "--rows", "softmax", *LIMITLESS, "--state", str(state), *OVERRIDES, "evaluate=false"]
    assert script.main([*command, "--outputs", str(first)]) == 0
    part = state / "campaign.tar.000"
    part.write_bytes(part.read_bytes()[:-512])
    capsys.readouterr()
    assert script.main([*command, "--outputs", str(second)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "damaged" in error and error.count("\n") == 1
    assert not second.exists()


def test_an_error_or_interrupt_still_leaves_the_state(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"

    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(farout.reproduce.stages, "evaluate", interrupted)
    command = [*SMALL, "--rows", "softmax", *LIMITLESS, "--state", str(state), "--outputs", str(tmp_path / "out")]
    assert script.main([*command, *OVERRIDES]) == 130
    (run,) = json.loads((state / "campaign.json").read_text())["runs"].values()
    assert run == {"finished": True, "step": 4, "evaluations": 0}


def test_dry_run_prints_the_plan_and_trains_nothing(
    script: ModuleType, clock: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*SMALL, "--outputs", str(tmp_path), *OVERRIDES]
    assert script.main([*command, "--minutes", "0.09", *ROWS]) == 3
    step = int(capsys.readouterr().out.split("spent at step ")[1].split()[0])
    files = sorted(tmp_path.rglob("*"))
    assert script.main([*command, "--minutes", "1", "--dry-run", *ROWS, "--seeds", "1", "2"]) == 0
    printed = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == files
    lines = [line for line in printed.splitlines() if line.startswith("│")]
    assert len(lines) == 8 and sum("evaluate" in line for line in lines) == 4
    assert f"step {step} of 4" in lines[0] and "to do" in lines[1]
    assert [line.split("│")[1].strip() for line in lines] == ["1"] * 4 + ["2"] * 4
    assert "slices of 1 min" in printed


def test_init_replaces_the_pre_training(script: ModuleType, in_one_go: Path, tmp_path: Path) -> None:
    named = next(path.parent for name, path in weights(in_one_go).items() if name.startswith("ce-"))
    command = [*SMALL, *ROWS, *LIMITLESS, "--outputs", str(tmp_path), "--init", str(named), *OVERRIDES]
    assert script.main(command) == 0
    (only,) = weights(tmp_path)
    assert only.startswith("energy-")
    assert (named / "results.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--table", "energy", "--id", "digits"], "no row digits_softmax"),
        ([*SMALL, "seed=3"], "use --seeds"),
        ([*SMALL, "m_inn=3"], "m_inn"),
        ([*SMALL, "--minutes", "0"], "--minutes 0 must be above 0"),
        ([*SMALL, "--init", "nowhere"], "not a run folder"),
    ],
)
def test_mistakes_are_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert script.main([*words, "--outputs", str(tmp_path / "outputs")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_missing_data_stops_before_anything_starts(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a later row needs the outliers, and yet the first one does not begin."""
    nowhere = ["outliers=tiny_imagenet", f"paths.data={tmp_path / 'store'}", f"paths.packs={tmp_path}"]
    command = [*SMALL, *ROWS, "--outputs", str(tmp_path / "outputs"), *OVERRIDES, *nowhere]
    assert script.main(command) == 2
    error = capsys.readouterr().err
    assert "is missing" in error and "prepare_data.py tiny_imagenet" in error and error.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_absent_ood_sets_are_listed(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--outputs",
        str(tmp_path),
        "--dry-run",
        "--rows",
        "softmax",
        *OVERRIDES,
        "ood_data.sets=[lsun,blobs@2000]",
    ]
    assert script.main([*SMALL, *words]) == 0
    printed = capsys.readouterr().out
    assert "will be left out: lsun - " in printed and "blobs" not in printed


# Experiments that belong to no row of their paper's table.
BESIDES = ("imagenet100", "_code", "_paper", "_plus", "_factored")


def test_every_row_of_every_table_is_there() -> None:
    for paper, scale in TABLES.values():
        rows = rows_of(paper, scale)
        folder = ROOT / "conf/experiment" / paper / scale
        files = {path.stem for path in folder.glob("*.yaml") if not any(word in path.stem for word in BESIDES)}
        ids = {name.partition("_")[0] for name in files}
        named = {TableRequest(paper, scale, id_data, rows, (1,)).experiment(row) for id_data in ids for row in rows}
        assert {f"{paper}/{scale}/{name}" for name in files} == named


def test_jems_slices_equal_one_go_buffer_included(
    script: ModuleType, clock: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A paused chain of trainings is carried on by the state folder, and what the method keeps with it."""
    jem = ["--table", "demo_jem", "--id", "digits", "--scale", "smoke", "--rows", "jem"]
    few = ["max_steps=4", "sgld_steps=2", "buffer_size=20", "trainer.device=cpu", "logger=none", "evaluate=false"]
    assert script.main([*jem, *LIMITLESS, "--outputs", str(tmp_path / "whole"), *few]) == 0
    code, said, slices = 3, "", 0
    while code == 3:
        slices += 1
        assert slices < 7
        words = ["--minutes", "0.07", "--state", str(tmp_path / "state"), "--outputs", str(tmp_path / f"{slices % 2}")]
        code = script.main([*jem, *words, *few])
        said += capsys.readouterr().out
    assert code == 0 and "budget is spent at step" in said
    for name in ("weights.safetensors", "method.safetensors"):
        (whole,) = (tmp_path / "whole/runs").glob(f"*/{name}")
        (own,) = (tmp_path / f"{slices % 2}/runs").glob(f"*/{name}")
        assert tensors_equal(load_file(whole), load_file(own)), name


FEW = ["max_steps=2", "batch_size=8", "ood_data=smoke", "max_eval_images=40", "geometry_images=0"]
FEW += ["max_fit_images=140", "trainer.device=cpu", "logger=none"]
SHORT = replace(farout.reproduce.stages.ATTACKS["demo"], images=4, steps=1, refine=(0, 1), copies=2, distal_steps=1)


@pytest.mark.e2e
def test_jem_is_sampled_and_attacked_in_slices_and_reproduce_finds_nothing_left(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One list of rows and stages: what slices on two machines did is what `reproduce` would do, tables included."""
    monkeypatch.setattr(farout.reproduce.stages, "ATTACKS", {"demo": SHORT})
    monkeypatch.setattr(farout.reproduce.stages, "CHAIN_STEPS", {"demo": 1})
    state, machines = tmp_path / "state", [tmp_path / "one", tmp_path / "two"]
    jem = ["--table", "demo_jem", "--id", "digits", "--state", str(state), *FEW]
    code, number, said = 3, 0, ""
    # All the time for training, none left after it: each slice does one stage, of the attack one curve.
    late = SimpleNamespace(monotonic=lambda: math.inf, perf_counter=time.perf_counter)
    for module in (farout.reproduce.stages, farout.runs.robustness):
        monkeypatch.setattr(module, "time", late)
    while code == 3:
        words = ["--minutes", "600", "--outputs", str(machines[number % 2])]
        code, number = script.main([*jem, *words]), number + 1
        printed = capsys.readouterr()
        said += printed.out
        assert number < 12 and not printed.err
    assert code == 0 and "curves of attacks on" in said and said.count("written: ") >= 5
    here = machines[(number - 1) % 2]
    progress = json.loads((state / "campaign.json").read_text())["progress"]
    assert [(stage["stage"], stage["row"]) for stage in progress] == [
        ("train", "ce"), ("train", "jem"), ("sample", "jem"),
        ("evaluate", "ce"), ("evaluate", "jem"), ("attack", "jem"),
    ]  # fmt: skip
    assert all(stage["done"] for stage in progress)
    (folder,) = (here / "runs").glob("jem-*")
    curves = json.loads((folder / "robustness.json").read_text())["curves"]
    assert [(c["label"], c["norm"]) for c in curves] == [
        (label, norm) for label in ("baseline (CE)", "JEM-0", "JEM-1") for norm in ("linf", "l2")
    ]
    distance = json.loads((folder / "samples/samples.json").read_text())["frechet_distance"]
    assert distance["features"].startswith("ce-")

    reproduce = ["--paper", "jem", "--scale", "demo", "--id", "digits", "--out", str(tmp_path / "tables"), *FEW]
    assert load_script("reproduce").main([*reproduce, f"paths.outputs={here}"]) == 0
    said = capsys.readouterr().out
    assert said.count("nothing left to do") == 2 and "sampled already" in said and "without attack" not in said
    written = here / "tables/demo_jem-digits"
    names = {f"{name}.{kind}" for name in ("jem", "hybrid", "calibration", "robustness") for kind in ("md", "csv")}
    assert names <= {path.name for path in written.iterdir()}
    for name in names:
        assert (written / name).read_text() == (tmp_path / "tables" / name).read_text()


class TestOnACluster:
    """Every stage a job of Slurm that waits for those that it needs."""

    @pytest.fixture
    def campaign(self, script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Asked]:
        def call(*words: str) -> Asked:
            capsys.readouterr()
            status = script.main([*SMALL, *ROWS, "--outputs", str(tmp_path / "outputs"), *OVERRIDES, *words])
            said = capsys.readouterr()
            return Asked(status, said.out, said.err)

        return call

    def test_it_ends_with_the_networks_and_tables_of_one_go(
        self, campaign: Callable[..., Asked], cluster: FakeSlurm, in_one_go: Path, tmp_path: Path
    ) -> None:
        submit = ["--launcher", "slurm", "hydra.launcher.partition=held"]
        assert campaign("--status").out.count("not submitted") == 4
        said = campaign(*submit)
        assert said.status == 0 and "4 stages submitted" in said.out
        jobs = cluster.jobs()
        waits = {job["flags"]["job-name"].split("-seed-1-")[-1]: awaited(job) for job in jobs.values()}
        assert waits == {
            "softmax-train": [], "energy_ft-train": ["1"], "softmax-evaluate": ["1"], "energy_ft-evaluate": ["2"],
            "demo-tables": ["1", "2", "3", "4"],
        }  # fmt: skip
        again = campaign(*submit)
        assert "no stages submitted" in again.out and len(cluster.jobs()) == 5, "nothing is submitted twice"
        stands = campaign("--launcher", "slurm", "--status")
        assert stands.status == 3 and stands.out.count("pending") == 4 and "0 of 4 stages are done" in stands.out
        cluster.release()
        cluster.wait()
        done = campaign("--status")
        assert done.status == 0 and "4 of 4 stages are done" in done.out
        ours, theirs = weights(tmp_path / "outputs"), weights(in_one_go)
        assert ours.keys() == theirs.keys() and len(ours) == 2
        assert all(tensors_equal(load_file(ours[name]), load_file(theirs[name])) for name in ours)
        table = "tables/demo-digits/table1.md"
        assert (tmp_path / "outputs" / table).read_text() == (in_one_go / table).read_text()

    def test_what_failed_is_told_and_submitted_again(self, campaign: Callable[..., Asked], cluster: FakeSlurm) -> None:
        campaign("--launcher", "slurm", "hydra.launcher.partition=broken")
        cluster.wait(20)
        assert [job["state"] for job in cluster.jobs().values()] == ["FAILED", *["CANCELLED"] * 4]
        said = campaign("--status").out
        assert said.count("failed before it began") == 1 and said.count("cancelled, because") == 3
        campaign("--launcher", "slurm", "hydra.launcher.partition=held-and-broken")
        assert len(cluster.jobs()) == 10

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["--launcher", "slurm", "hydra.launcher.partition=closed"], "Slurm refuses the job"),
            (["--launcher", "slurm", "hydra.launcher.cluster=local"], "hydra.launcher.cluster=local: jobs that wait"),
            (["--launcher", "slurm", "--state", "there"], "--state carries a campaign"),
            (["hydra.launcher.partition=gpu"], "hydra.launcher.partition=gpu is about jobs of Slurm"),
        ],
    )
    def test_what_cannot_be_is_one_line(
        self, campaign: Callable[..., Asked], cluster: FakeSlurm, words: list[str], line: str
    ) -> None:
        asked = campaign(*words)
        assert asked.status == 2 and asked.err.startswith(f"error: {line}") and asked.err.count("\n") == 1
        assert not cluster.jobs()


def awaited(job: dict[str, Any]) -> list[str]:
    return re.findall(r"\d+", job["flags"].get("dependency", ""))
