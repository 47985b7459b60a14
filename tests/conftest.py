"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

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
