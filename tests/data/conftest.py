"""Fixtures for data tests that need no packs: tiny images, and a repository in a temporary folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from farout.data import DataPaths, ImageSet

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path) -> DataPaths:
    """The real catalogue with an empty store and no packs."""
    return DataPaths(store=tmp_path / "store", packs=None, conf=ROOT / "conf")


@pytest.fixture
def own(tmp_path: Path) -> DataPaths:
    """An empty catalogue, store and packs folder."""
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "packs").mkdir()
    return DataPaths(store=tmp_path / "store", packs=tmp_path / "packs", conf=tmp_path / "conf")


@pytest.fixture
def add_dataset(own: DataPaths):
    """Write a data set's YAML into the empty catalogue."""

    def add(name: str, text: str) -> None:
        (own.conf / "dataset" / f"{name}.yaml").write_text(text)

    return add


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Two classes of images in different sizes: cat (2), dog (1)."""
    rng = np.random.default_rng(0)
    for name, (height, width) in {
        "cat/a.png": (40, 60),
        "cat/b.png": (32, 32),
        "dog/c.png": (64, 50),
    }.items():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def make_set():
    """An ImageSet of random uint8 images."""

    def make(n: int, side: int = 8, classes: int = 3, seed: int = 0) -> ImageSet:
        rng = np.random.default_rng(seed)
        images = torch.from_numpy(rng.integers(0, 256, (n, 3, side, side), np.uint8))
        labels = torch.from_numpy(np.sort(rng.integers(0, classes, n)))
        names = tuple(f"class_{i}" for i in range(classes))
        return ImageSet("tiny", "test", images, labels, names, raw=False, info={"n": n})

    return make
