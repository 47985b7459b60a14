"""Damaged, hostile, renamed and changed run folders: one line, nothing executed, nothing lost, made anew."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from farout.config.compose import compose_settings
from farout.detector import Detector
from farout.engine.checkpoint import save_weights
from farout.errors import ConfigError, FaroutError
from farout.files import load_json, save_json
from farout.runs.lineage import ancestry
from farout.runs.records import DamagedRun
from farout.runs.recovery import recover, set_aside_damage
from farout.runs.run import Run, open_run
from farout.runs.training import train

CPU = torch.device("cpu")
SHORT = ["max_steps=2", "batch_size=8", "trainer.device=cpu", "evaluate=false", "backbone.width=8"]
QUICK = ["score=[max_logit]", "ood_data.sets=[gaussian@50]", "max_eval_images=16", "geometry_images=0"]
CE = "ce-resnet20-digits"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, only to be copied."""
    outputs = tmp_path_factory.mktemp("trained")
    words = ["scale=smoke", "id_data=digits", "backbone=resnet20", "logger=none", f"paths.outputs={outputs}"]
    train(compose_settings([*words, *SHORT]))
    return next(outputs.glob("runs/ce-*"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """The run where the command of the tiny problem looks for it."""
    return open_run(shutil.copytree(trained, tmp_path / "outputs/runs" / trained.name))


def changed(run: Run, change: Callable[[dict[str, Any]], None]) -> None:
    """run.json with other content."""
    record = load_json(run.folder / "run.json")
    change(record)
    save_json(run.folder / "run.json", record)


def aside(run: Run) -> list[str]:
    return sorted(path.name for path in run.folder.glob("*.damaged*"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


WEIGHTS, BOTH = ["weights.safetensors.damaged"], ["run.json.damaged", "weights.safetensors.damaged"]
DAMAGE: dict[str, tuple[Callable[[Run], Any], list[str]]] = {
    "weights cut": (lambda run: cut(run.weights), WEIGHTS),
    "weights of another network": (lambda run: _other_network(run), WEIGHTS),
    "a flipped bit": (lambda run: (_hashed(run), flip(run.weights)), WEIGHTS),
    "run.json cut": (lambda run: cut(run.folder / "run.json"), BOTH),
    "run.json absent": (lambda run: (run.folder / "run.json").unlink(), WEIGHTS),
    "run.json a list": (lambda run: save_json(run.folder / "run.json", [1]), BOTH),
    "another run's": (lambda run: changed(run, lambda record: record["identity"].update(holdout=0.5)), BOTH),
    "no classes": (lambda run: changed(run, lambda record: record.update(targets={"backbone": 3})), BOTH),
    "hostile": (lambda run: changed(run, lambda record: record["targets"].update(transform="os.system")), BOTH),
}


def _hashed(run: Run) -> None:
    run.write_record(files={run.weights.name: hashlib.sha256(run.weights.read_bytes()).hexdigest()})


def _other_network(run: Run) -> None:
    changed(run, lambda record: record.pop("files", None))
    save_weights(run.weights, torch.nn.Linear(2, 2))


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_damaged_is_named_and_moved_aside(run, case, capsys):
    damage, expected = DAMAGE[case]
    damage(run)
    if case != "another run's":  # which only its own settings can tell
        with pytest.raises(
            FaroutError, match=r"is damaged .*repeat the `python train\.py` command|has no run\.json"
        ) as caught:
            _use(run.folder)
        assert "\n" not in str(caught.value)
    assert not aside(run), "reading changes nothing"
    set_aside_damage(run, same=True)
    said = capsys.readouterr().out
    assert aside(run) == expected and all(name in said for name in expected) and said.count("\n") == 1
    assert not run.finished, "so it is trained again"
    set_aside_damage(run, same=True)
    assert aside(run) == expected


@pytest.mark.parametrize("name", ["weights.safetensors", "run.json"])
def test_the_advice_helps(command, run, name):
    cut(run.folder / name)
    done = command("eval", *SHORT, *QUICK)
    assert done.status == 2
    assert done.err.count("\n") == 1 and f"{name} is damaged" in done.err
    done = command("train", *SHORT)
    assert done.status == 0 and "it is made anew" in done.out
    assert f"{name}.damaged" in aside(run)
    assert command("eval", *SHORT, *QUICK).status == 0


def test_what_the_method_learnt_is_needed_too(run):
    set_aside_damage(run, learns=True)
    assert aside(run) == WEIGHTS


def test_a_second_damage_does_not_lose_the_first(run):
    for _ in range(2):
        cut(run.weights)
        set_aside_damage(run)
        shutil.copy(run.folder / "weights.safetensors.damaged", run.weights)
    assert aside(run) == ["weights.safetensors.damaged", "weights.safetensors.damaged-2"]


SHAPES: list[Any] = [None, "text", [3]]


def test_no_shape_of_run_json_is_a_traceback(run):
    """Every value of the record in turn becomes one of another kind, or goes: one line, or a value that may be so."""
    text = (run.folder / "run.json").read_text()
    for place in _places(json.loads(text)):
        for value in [*SHAPES, _GONE]:
            record = json.loads(text)
            _put(record, place, value)
            (run.folder / "run.json").write_text(json.dumps(record))
            try:
                _use(run.folder, network="backbone" in place)
            except FaroutError as error:
                assert "\n" not in str(error)


_GONE = object()


def _places(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = [place for key in value for place in _places(value[key], (*at, key))] if isinstance(value, dict) else []
    return [at, *inner] if at and at[0] in ("identity", "targets", "files") else inner or ([at] if at else inner)


def _put(record: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for key in place[:-1]:
        record = record[key]
    if value is _GONE:
        del record[place[-1]]
    else:
        record[place[-1]] = value


def _use(folder: Path, network: bool = True) -> None:
    run = open_run(folder)
    run.transform()
    assert run.targets and run.reading() and run.classifier_trained in (True, False)
    if network:
        run.check_files()


PICTURES = torch.zeros(20, 3, 8, 8, dtype=torch.uint8)
HOSTILE = ["os.system", "subprocess.Popen", "antigravity.geohash", "torch.nn.Identity", "farout.files.set_aside"]
HOSTILE += ["farout.runs.run.Run", "farout.methods.CrossEntropy", "builtins.eval", "..os.system", "", "farout.", "x"]


@pytest.mark.parametrize("group", ["transform", "backbone"])
def test_a_records_other_classes_are_never_built_nor_imported(run, group, monkeypatch):
    imported = []
    monkeypatch.setattr("importlib.import_module", lambda name, *more: imported.append(name) or _real(name))
    for target in HOSTILE:
        changed(run, lambda record: record["targets"].update({group: target}))  # noqa: B023
        changed(run, lambda record: record["identity"].update({group: {"name": "x", "command": "touch PWNED"}}))
        for use in (_use, partial(Detector.from_run, device="cpu", calibration_images=PICTURES)):
            with pytest.raises(FaroutError, match=r"is damaged|nothing else is built|names no class|blank") as caught:
                use(run.folder)
            assert "\n" not in str(caught.value)
    assert all(name.split(".")[0] == "farout" for name in imported)


def _real(name: str) -> Any:
    import sys

    __import__(name)
    return sys.modules[name]


@pytest.mark.parametrize("word", ["transform._target_=os.system", "backbone._target_=torch.nn.Linear"])
def test_the_command_line_builds_none_either(settings, word):
    with pytest.raises(ConfigError, match="of farout, and nothing else is built"):
        settings(word)


# --- the same command on other images or classes


def test_other_images_are_another_run(run, command):
    old = run.record["data"]["labelled"]["sha256"]
    changed(run, lambda record: record["data"]["labelled"].update(sha256="0123456789abcdef" * 4))
    done = command("train", *SHORT)
    assert done.status == 2 and done.err.count("\n") == 1
    assert "0123456789abcdef" in done.err and old[:16] in done.err and "paths.outputs" in done.err


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("rows_sha256", "0" * 64, "the choice among the images"), ("rows_sha256", None, None), ("labelled", None, None)],
)
def test_other_rows_are_another_run_and_what_is_not_known_is_none(run, command, key, value, said):
    def change(record):
        record["data"].pop(key)
        record["data"] |= {} if value is None else {key: value}

    changed(run, change)
    done = command("train", *SHORT)
    assert (said in done.err) if said else "is finished" in done.out


def test_the_methods_class_is_compared_too(run, settings):
    own = settings(*SHORT)
    changed(run, lambda record: record["targets"].update(method="farout.methods.SupCon"))
    with pytest.raises(FaroutError, match=r"was trained with method\._target_=farout\.methods\.SupCon"):
        recover(run, own, _no_data())
    changed(run, lambda record: record["targets"].pop("method"))
    recover(run, own, _no_data())


def _no_data() -> Any:
    class Nothing:
        def record(self) -> dict[str, Any]:
            return {}

    return Nothing()


# --- folders that were moved


@pytest.mark.parametrize("place", [".", "../renamed", "deeper/.."])
def test_a_renamed_run_is_known_by_its_folder(run, monkeypatch, place):
    folder = run.folder.rename(run.folder.parent / "renamed")
    (folder / "deeper").mkdir()
    monkeypatch.chdir(folder)
    found = open_run(place)
    assert found.name == "renamed"
    with found.locked():
        found.model(CPU)


def test_a_damaged_neighbour_is_nobodys_parent(run):
    other = run.folder.parent / "another"
    other.mkdir()
    (other / "run.json").write_text("{")
    changed(run, lambda record: record["identity"].update(parent="00000000"))
    with pytest.raises(FaroutError, match="is not in"):
        ancestry(open_run(run.folder))
    with pytest.raises(DamagedRun, match="is not valid JSON"):
        open_run(other)
