"""Worked examples of docs/, executed in a copy of the repository; README's links and commands; the map."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import farout
from documents import fences
from worked_examples import copy_of_the_repository, run_line

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The parts of the repository that a run needs, and a folder of pictures."""
    copy_of_the_repository(tmp_path)
    rng = np.random.default_rng(0)
    for kind in ("cats", "dogs"):
        folder = tmp_path / "my_photos" / kind
        folder.mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path


@pytest.mark.e2e
def test_the_worked_examples_work(copy: Path) -> None:
    for kind, text in fences((ROOT / "docs/extending.md").read_text()):
        if kind == "bash":
            for line in text.strip().splitlines():
                run_line(line, copy)
        else:
            named = re.search(r"^# ((?:src|conf)/\S+)$", text, flags=re.MULTILINE)
            assert named is not None, text
            path = copy / named.group(1)
            assert not path.exists(), path
            path.write_text(text)
    results = next((copy / "outputs/runs").glob("smoothed-*/results.json")).read_text()
    assert '"gap"' in results and '"My photographs"' in results
    record = next((copy / "outputs/runs").glob("ce-resnet20-ours-*/run.json")).read_text()
    assert '"holdout": 0.25' in record


def test_scores_of_outputs_from_elsewhere() -> None:
    (code,) = [
        text
        for kind, text in fences((ROOT / "docs/scores.md").read_text())
        if kind == "python" and "farout.scores.functional" in text
    ]
    rng = np.random.default_rng(0)
    space = {name: rng.normal(size=(80, 6)) for name in ("logits", "ood_logits", "features", "train_features")}
    space |= {"farout": farout, "train_labels": np.arange(80) % 3}
    exec(code, space)
    np.testing.assert_allclose(space["energy"](space["logits"]), np.log(np.exp(space["logits"]).sum(1)))


def test_every_file_and_link_that_it_names_exists() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for script in re.findall(r"(?:scripts/[\w/]+\.py|train\.py|eval\.py)", README):
        assert (ROOT / script).exists(), script


def test_every_make_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z][a-z0-9-]+)", README)) <= targets


def test_the_map_names_every_folder() -> None:
    text = (ROOT / "docs/map.md").read_text()
    for folder in (ROOT / "src/farout").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert f"src/farout/{folder.name}/" in text, folder.name
    for group in (ROOT / "conf").iterdir():
        if group.is_dir() and group.name != "hydra":
            assert group.name in text, group.name
