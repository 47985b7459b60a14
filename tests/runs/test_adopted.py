"""Runs that were trained elsewhere and copied: adopted whole or refused in one line, rounded weights named as such."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from farout.config.compose import compose_settings
from farout.config.settings import Settings
from farout.files import load_json, save_json
from farout.runs.lineage import ancestry
from farout.runs.run import open_run, run_of
from farout.runs.training import train
from script_loader import load_script

CPU = torch.device("cpu")
PROBLEM = ["scale=smoke", "id_data=digits", "logger=none", "trainer.device=cpu", "evaluate=false"]
CE = ["method=ce", "backbone=resnet20", "backbone.width=8", "max_steps=2", "batch_size=8"]
ENERGY = ["method=energy", *CE[1:], "outlier_batch_size=8", "pretrain.max_steps=2", "pretrain.batch_size=8"]
CIDER = ["method=cider", "backbone=resnet18_cider", "backbone.width=2", "backbone.projection_dim=8"]
CIDER += ["transform=digits_views", "max_steps=2", "batch_size=8"]


def settings(outputs: Path, *words: str) -> Settings:
    found = compose_settings([*PROBLEM, *words])
    return replace(found, paths=replace(found.paths, outputs=str(outputs)))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs of another machine by method, only to be copied; the classifier and its child are of bf16."""
    outputs = tmp_path_factory.mktemp("elsewhere")
    train(settings(outputs, *ENERGY, "trainer.precision=bf16"))
    train(settings(outputs, *CIDER))
    return {path.name.partition("-")[0]: path for path in outputs.glob("runs/*-s1")}


@pytest.fixture
def copied(elsewhere: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of such a run's folder, to be changed and adopted."""
    return lambda method: Path(shutil.copytree(elsewhere[method], tmp_path / "copied" / elsewhere[method].name))


@pytest.fixture
def adopt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The command on a folder: (its status, what it said)."""

    def call(folder: Path, *words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = load_script("import_checkpoint").main(
            [str(folder), "--as-run", "--outputs", str(tmp_path / "outputs"), *words]
        )
        said = capsys.readouterr()
        return status, said.out + said.err

    return call


def rounded(path: Path, kind: torch.dtype = torch.float16) -> None:
    """As weights are made smaller for a journey: matrices and kernels alone."""
    save_file({key: value.to(kind) if value.dim() > 1 else value for key, value in load_file(path).items()}, path)


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = load_json(folder / "run.json")
    change(record)
    save_json(folder / "run.json", record)


@pytest.mark.parametrize("method", ["ce", "cider"])
def test_the_command_that_trained_it_finds_it_finished(copied, adopt, tmp_path, capsys, method):
    folder = copied(method)
    assert adopt(folder, "--note", "by train")[0] == 0
    own = run_of(settings(tmp_path / "outputs", *(CE if method == "ce" else CIDER)), CPU)
    assert own.finished and own.name == folder.name
    for path in [own.weights, *([own.method_state] if method == "cider" else [])]:
        assert path.read_bytes() == (folder / path.name).read_bytes()
    before = load_json(folder / "run.json")
    assert own.record["files"] == before["files"]
    assert {key: value for key, value in own.record.items() if key != "adopted"} == before
    (arrival,) = own.record["adopted"]
    assert arrival["note"] == "by train"
    assert arrival["files"][0] == {
        "name": own.weights.name,
        "sha256": before["files"][own.weights.name],
        "recorded": before["files"][own.weights.name],
        "rounded": {},
    }
    train(settings(tmp_path / "outputs", *(CE if method == "ce" else CIDER)))
    assert f"{own.name} is finished" in capsys.readouterr().out
    assert own.weights.read_bytes() == (folder / own.weights.name).read_bytes()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_rounded_weights_are_taken_said_and_recorded(copied, adopt, tmp_path, kind):
    folder = copied("ce")
    whole = load_file(folder / "weights.safetensors")
    rounded(folder / "weights.safetensors", kind)
    status, said = adopt(folder)
    many, name = sum(value.dim() > 1 for value in whole.values()), str(kind).removeprefix("torch.")
    recorded = load_json(folder / "run.json")["files"]["weights.safetensors"]
    assert status == 0 and f"({many} of {len(whole)} tensors to {name})" in said
    assert f"not {recorded[:12]} any more" in said
    run = open_run(tmp_path / "outputs/runs" / folder.name)
    run.check_files()
    found = load_file(run.weights)
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}
    for key, value in whole.items():
        assert torch.equal(found[key], value.to(kind).float() if value.dim() > 1 else value), key
    facts = run.record["adopted"][0]["files"][0]
    assert facts["recorded"] == recorded and facts["rounded"] == {name: many}
    assert len({facts["sha256"], facts["recorded"], run.record["files"]["weights.safetensors"]}) == 3


def test_what_is_there_is_kept(copied, adopt, tmp_path, elsewhere):
    folder, here = copied("ce"), tmp_path / "outputs/runs" / elsewhere["ce"].name
    assert adopt(folder)[0] == 0
    before = (here / "run.json").read_bytes()
    rounded(folder / "weights.safetensors")
    for source in (folder, elsewhere["ce"], here):
        status, said = adopt(source)
        assert status == 0 and "is there already, with these weights" in said
    assert (here / "run.json").read_bytes() == before
    state = load_file(folder / "weights.safetensors")
    save_file({**state, "linear.bias": state["linear.bias"] + 1}, folder / "weights.safetensors")
    status, said = adopt(folder)
    assert status == 2 and "holds other weights: move it away" in said
    (here / "weights.safetensors").unlink()
    status, said = adopt(elsewhere["ce"])
    assert status == 2 and "is there and not finished" in said
    assert (here / "run.json").read_bytes() == before


def test_a_child_is_found_without_its_parent_whatever_precision_that_had(copied, adopt, tmp_path):
    wanted = settings(tmp_path / "outputs", *ENERGY)
    assert not run_of(wanted, CPU).finished
    folder = copied("energy")
    status, said = adopt(folder)
    assert status == 0 and "that is not in" in said and "it can be evaluated without" in said
    assert run_of(wanted, CPU).name == folder.name and run_of(wanted, CPU).finished
    train(wanted)
    assert [path.name for path in (tmp_path / "outputs/runs").glob("[!.]*")] == [folder.name], "no parent was trained"
    assert adopt(copied("ce"))[0] == 0
    assert run_of(wanted, CPU).name == folder.name
    assert [run.identity["method"]["name"] for run in ancestry(run_of(wanted, CPU))] == ["energy", "ce"]


def flipped(folder: Path) -> None:
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "weights.safetensors").write_bytes(content)


def reshaped(folder: Path) -> None:
    state = load_file(folder / "weights.safetensors")
    save_file({**state, "linear.bias": torch.zeros(3)}, folder / "weights.safetensors")


def infinite(folder: Path) -> None:
    state = load_file(folder / "weights.safetensors")
    save_file(
        {key: value.half() * 1e6 for key, value in state.items() if value.is_floating_point()}
        | {key: value for key, value in state.items() if not value.is_floating_point()},
        folder / "weights.safetensors",
    )


WEIGHTS = "weights.safetensors"
REFUSED: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "another folder": ("ce", lambda f: (f / "run.json").unlink(), "holds no run.json"),
    "no weights": ("ce", lambda f: (f / WEIGHTS).unlink(), f"holds no {WEIGHTS}"),
    "cut weights": ("ce", lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:999]), "is damaged"),
    "a flipped bit": ("ce", flipped, "has the hash"),
    "another shape": ("ce", reshaped, "linear.bias is (3,), not (7,)"),
    "numbers too large for float16": ("ce", infinite, "has NaN or infinity"),
    "no prototypes": ("cider", lambda f: (f / "method.safetensors").unlink(), "holds no method.safetensors"),
    "prototypes of nobody": ("ce", lambda f: shutil.copy(f / WEIGHTS, f / "method.safetensors"), "ce learns nothing"),
    "no JSON": ("ce", lambda f: (f / "run.json").write_text("{"), "run.json is damaged"),
    "other settings": ("ce", lambda f: changed(f, lambda r: r["identity"].update(holdout=0.5)), "what it describes is"),
    "another name": ("ce", lambda f: changed(f, lambda r: r.update(run="../x")), "calls itself '../x'"),
    "no name": ("ce", lambda f: changed(f, lambda r: r.pop("run")), "calls itself None"),
    "no targets": ("ce", lambda f: changed(f, lambda r: r.pop("targets")), "targets is missing"),
    "hostile": ("ce", lambda f: changed(f, lambda r: r["targets"].update(backbone="os.system")), "is damaged"),
    "hostile method": ("ce", lambda f: changed(f, lambda r: r["targets"].update(method="os.system")), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_damaged_or_foreign_is_refused_in_one_line(copied, adopt, tmp_path, case):
    method, spoil, reason = REFUSED[case]
    folder = copied(method)
    spoil(folder)
    status, said = adopt(folder)
    assert status == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    assert reason in said
    assert not list((tmp_path / "outputs").glob("runs/[!.]*"))


def test_a_folder_of_another_name_is_refused(copied, adopt):
    folder = copied("ce")
    status, said = adopt(folder.rename(folder.with_name("mine")))
    assert status == 2 and f"holds the run {folder.name}: call the folder that" in said


def test_options_that_run_json_answers_are_refused(copied, adopt, capsys):
    status, said = adopt(copied("ce"), "--id", "digits")
    assert status == 2 and "--id does not go with --as-run" in said
    assert load_script("import_checkpoint").main(["weights.pt"]) == 2
    assert "--id is missing" in capsys.readouterr().err


def test_a_kill_leaves_no_part_of_a_run(copied, adopt, tmp_path, monkeypatch):
    folder = copied("ce")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("farout.runs.adopted.new_file", killed)
        assert adopt(folder)[0] == 130
    assert not list((tmp_path / "outputs").glob("runs/[!.]*"))
    debris = tmp_path / f"outputs/runs/.{folder.name}-building-x"
    debris.mkdir()
    assert adopt(folder)[0] == 0 and not debris.exists()


@pytest.mark.drawn
def test_results_say_that_the_weights_were_rounded(copied, adopt, tmp_path):
    folder = copied("ce")
    rounded(folder / "weights.safetensors")
    assert adopt(folder)[0] == 0
    words = ["ood_data.sets=[gaussian@50]", "max_eval_images=16", "geometry_images=0", "score=[msp]"]
    train(replace(settings(tmp_path / "outputs", *CE, *words), evaluate=True))
    results = json.loads((tmp_path / "outputs/runs" / folder.name / "results.json").read_text())
    assert results["adopted"][0]["files"][0]["rounded"].keys() == {"float16"}
    assert "on their way here, to float16" in (tmp_path / "outputs/runs" / folder.name / "report.html").read_text()
