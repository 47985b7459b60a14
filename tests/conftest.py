"""Fixtures shared by all tests."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from farout.data import DataPaths, default_paths

ROOT = Path(__file__).resolve().parents[1]


def _packs() -> Path | None:
    found = default_paths(ROOT).packs
    return found if found is not None and (found / "cifar10_test.tar").is_file() else None


@pytest.fixture(scope="session")
def packs() -> Path:
    """The folder with the image packs; tests that need it are skipped, with the reason, where there is none."""
    found = _packs()
    if found is None:
        pytest.skip("no image packs: put them into packs/ or name their folder in FAROUT_PACKS")
    return found


@pytest.fixture(scope="session")
def data_paths() -> DataPaths:
    """The store that this checkout uses anyway: built once, shared by all tests and workers (builds are locked)."""
    return default_paths(ROOT)


@pytest.fixture
def imagenet_folder(tmp_path: Path) -> Path:
    """ImageNet's layout, tiny: train/ and val/ with parts of two photographs in many sizes, and classes.txt.

    Three classes are listed (china, flower, and china in grey), a fourth folder is not.
    """
    from sklearn.datasets import load_sample_image  # slow to import, and the process that only hands out tests need not

    rng = np.random.default_rng(0)
    photos = {name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")}
    kinds = {"n01440764": "china", "n02102040": "flower", "n03000684": "china", "n04000000": "flower"}
    for split, count in (("train", 4), ("val", 2)):
        for wnid, name in kinds.items():
            place = tmp_path / "imagenet" / split / wnid
            place.mkdir(parents=True)
            for i in range(count):
                width, height = (int(side) for side in rng.integers(90, 300, 2))
                left, top = int(rng.integers(0, 640 - width)), int(rng.integers(0, 427 - height))
                part = photos[name].crop((left, top, left + width, top + height))
                part = part.convert("L") if wnid == "n03000684" else part  # as some of ImageNet's files are
                part.save(place / f"{i}.JPEG", quality=90)
    (tmp_path / "imagenet/classes.txt").write_text("# three\nn02102040  # flower\n\nn01440764\nn03000684\n")
    return tmp_path / "imagenet"


@pytest.fixture(scope="session", autouse=True)
def _drawing() -> Iterator[dict[str, Callable[..., object]]]:
    """No evaluation draws figures or writes report.html and index.html, which is most of its time; what would have."""
    from farout.runs import evaluation_files

    with pytest.MonkeyPatch.context() as patch:
        real = {name: getattr(evaluation_files, name) for name in ("_present", "write_overview")}
        for name in real:
            patch.setattr(evaluation_files, name, lambda *given: [])
        yield real


@pytest.fixture(autouse=True)
def _drawn(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _drawing: dict[str, Callable[..., object]]
) -> None:
    """Evaluations of tests marked `drawn` leave figures, report.html and index.html, as those of a user do."""
    if request.node.get_closest_marker("drawn") is not None:
        for name, real in _drawing.items():
            monkeypatch.setattr(f"farout.runs.evaluation_files.{name}", real)


def pytest_collection_finish() -> None:
    """What is loaded by now stays for good: garbage collection need not walk over a million objects of it again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Or libraries would report at the end what was never collected."""
    gc.unfreeze()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Where the packs are present, a skipped data test is a failure: nothing may quietly not run."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and item.get_closest_marker("data") and _packs() is not None and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"a data test was skipped although the packs are present: {report.longrepr}"


@pytest.fixture(scope="session", autouse=True)
def _quiet_environment() -> None:
    """W&B never asks for an account in tests."""
    os.environ.setdefault("WANDB_MODE", "offline")
