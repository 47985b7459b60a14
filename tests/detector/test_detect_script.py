"""scripts/detect.py as a user calls it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from PIL import Image
from torch import Tensor

from farout.detector import Detector
from farout.runs.run import Run
from script_loader import load_script


class Done(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("detect")


@pytest.fixture
def detect(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def call(*words: object) -> Done:
        capsys.readouterr()
        status = script.main([*map(str, words), "--device", "cpu"])
        return Done(status, *capsys.readouterr())

    return call


@pytest.fixture
def photos(tmp_path: Path, held_out: Tensor, strangers: Tensor) -> Path:
    """Two held-out digits, and noise in a folder below whose name rich could take for markup."""
    folder = tmp_path / "photos"
    (folder / "[red]more").mkdir(parents=True)
    for i in range(2):
        Image.fromarray(held_out[i].permute(1, 2, 0).numpy()).save(folder / f"digit{i}.png")
    Image.fromarray(strangers[0].permute(1, 2, 0).numpy()).resize((64, 48)).save(folder / "[red]more/noise.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_table_with_a_verdict_per_image(detect: Callable[..., Done], run: Run, photos: Path) -> None:
    done = detect(run.folder, photos)
    assert done.status == 0, done.err
    expect = Detector.from_run(run.folder, device="cpu")
    for found, name in zip(expect.predict(photos), ("[red]more/noise.png", "digit0.png", "digit1.png"), strict=True):
        [line] = [line for line in done.out.splitlines() if name in line]
        verdict = "in" if found.in_distribution else "OUT"
        assert [part.strip() for part in line.split("│")][1:] == [
            found.name, f"{found.score:.5g}", f"{expect.tau:.5g}", verdict
        ]  # fmt: skip
    assert f"tau {expect.tau:.5g} accepts 95 % of 176 images (holdout of digits (train))" in done.out


def test_files_with_any_name_and_none_that_is_hidden(
    detect: Callable[..., Done], run: Run, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "[red]more").rename(photos / os.fsdecode(b"caf\xe9\nbar"))
    (photos / ".thumbnails").mkdir()
    (photos / ".thumbnails/x.png").write_bytes((photos / "digit0.png").read_bytes())
    (photos / "linked").symlink_to(photos / os.fsdecode(b"caf\xe9\nbar"))
    os.mkfifo(photos / "pipe.png")
    done = detect(run.folder, photos)
    assert done.status == 0, done.err
    shown = [line.split("│")[0].strip().removeprefix(f"{photos}/") for line in done.out.splitlines() if "png" in line]
    assert shown == [r"caf\xe9\nbar/noise.png", "digit0.png", "digit1.png", "linked/noise.png"]
    said = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert said == [f"{photos}: passed over 2 that are no images (1 .txt, 1 devices or pipes)"]
    listed = json.loads(detect(run.folder, photos, "--json").out)["images"]
    assert os.fsencode(listed[0]["image"]) == os.fsencode(photos) + b"/caf\xe9\nbar/noise.png"


def test_json_and_a_saved_detector(detect: Callable[..., Done], run: Run, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "detector.safetensors"
    first = detect(run.folder, photos, "--json", "--score", "knn", "--tpr", "0.9", "--save", file)
    again = detect(file, photos / "digit0.png", photos / "digit1.png", "--json")
    content, rest = json.loads(first.out), json.loads(again.out)
    assert content["detector"]["score"] == "knn"
    assert content["detector"]["tpr"] == 0.9
    assert content["detector"] == rest["detector"]
    assert [Path(row["image"]).name for row in content["images"]] == ["noise.png", "digit0.png", "digit1.png"]
    assert set(content["images"][0]) == {"image", "index", "name", "score", "in_distribution"}
    assert [row["in_distribution"] for row in rest["images"]] == [
        row["score"] >= rest["detector"]["tau"] for row in rest["images"]
    ]
    keep = detect(run.folder, "--save", tmp_path / "only.safetensors")
    assert keep.status == 0 and (tmp_path / "only.safetensors").is_file()


def test_calibration_and_its_notes(detect: Callable[..., Done], unheld: Run, photos: Path) -> None:
    done = detect(unheld.folder, photos, "--calibration", photos / "[red]more", "--calibration", photos / "digit0.png")
    assert done.status == 0
    assert "of 2 images (given by the caller)" in done.out
    assert "note: " in done.err and "was trained on 1 of 2 calibration images" in done.err
    assert "2 calibration images are few" in done.err
    assert all(line.startswith("note: ") for line in done.err.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN"], "no image is given"),
        (["RUN", "absent.png"], "absent.png is not there"),
        (["RUN", "BROKEN"], "broken.jpg cannot be read"),
        (["RUN", "PHOTO", "--score", "enrgy"], "score=enrgy is not there: choose from"),
        (["RUN", "PHOTO", "--tpr", "95"], "--tpr 95 must be below 1"),
        (["UNHELD", "PHOTO"], "kept no image from training"),
        (["absent", "PHOTO"], "absent is not there: give a file that Detector.save wrote"),
        (["PHOTO", "PHOTO"], "cannot be read"),
        (["PHOTO", "PHOTO", "--tpr", "0.9"], "--tpr cannot change a saved detector"),
    ],
)
def test_errors_are_one_line_and_status_2(
    detect: Callable[..., Done], run: Run, unheld: Run, photos: Path, words: list[str], message: str
) -> None:
    broken = photos / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 broken")
    places = {"RUN": run.folder, "UNHELD": unheld.folder, "PHOTO": photos / "digit0.png", "BROKEN": broken}
    done = detect(*(places.get(word, word) for word in words))
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert message in done.err


def test_help_helps(detect: Callable[..., Done]) -> None:
    done = detect("--help")
    assert done.status == 0
    shown = done.out
    for part in ("--calibration", "--tpr", "--save", "--json", "examples:", "exit status", "cropped in the centre"):
        assert part in shown
