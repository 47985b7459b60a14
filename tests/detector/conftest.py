"""Finished runs of a tiny problem (ResNet-20 on digits, three steps), with and without a holdout."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from farout.config.compose import compose_settings
from farout.data import DataPaths, ImageSet, open_dataset
from farout.data.streams import holdout_split
from farout.runs.run import Run, run_of
from farout.runs.training import train

CPU = torch.device("cpu")
TINY = ["scale=smoke", "id_data=digits", "backbone=resnet20", "logger=none", "evaluate=false", "trainer.device=cpu"]

Trained = Callable[..., Run]


def trained_in(outputs: Path, *words: str) -> Run:
    """The finished run of the tiny problem with these overrides."""
    found = compose_settings([*TINY, *words])
    settings = replace(found, paths=replace(found.paths, outputs=str(outputs)))
    train(settings)
    return run_of(settings, CPU)


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """Train in a folder of the test's own."""
    return lambda *words: trained_in(tmp_path / "outputs", *words)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Energy fine-tuning whose parent held out the same images; no test may change it."""
    return trained_in(
        tmp_path_factory.mktemp("run") / "outputs", "method=energy", "holdout=0.2", "pretrain.holdout=0.2"
    )


@pytest.fixture(scope="session")
def unheld(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Cross-entropy on all images; no test may change it."""
    return trained_in(tmp_path_factory.mktemp("unheld") / "outputs", "method=ce")


@pytest.fixture(scope="session")
def digits(data_paths: DataPaths) -> ImageSet:
    """The labelled images of both runs."""
    return open_dataset("digits", "train", data_paths)


@pytest.fixture(scope="session")
def held_out(digits: ImageSet) -> Tensor:
    """Those that `run` never saw."""
    return digits.images[holdout_split(len(digits), 0.2)[1]]


@pytest.fixture(scope="session")
def strangers() -> Tensor:
    """uint8 (30, 3, 32, 32): noise, and something smoother."""
    noise = torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    noise[15:] = torch.nn.functional.avg_pool2d(noise[15:].float(), 5, 1, 2).to(torch.uint8)
    return noise
