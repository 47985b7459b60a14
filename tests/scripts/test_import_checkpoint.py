"""Weights trained elsewhere become runs of ours, and score what their authors published."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from farout.data import DataPaths, ImageSet, open_dataset
from farout.engine.evaluate import accuracy, collect
from farout.launch.runs import Run, open_run
from farout.metrics import detection_metrics
from farout.scores import Outputs
from farout.scores.energy import Energy
from farout.scores.msp import MSP

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")

# AUROC (MSP, energy) of the public ResNet-56 on every second CIFAR-10 test image against the first 5,000 images of
# each pack (Tiny ImageNet: every sixth), measured once with an independent script.
SANITY = {
    ("cifar100", "test"): (0.865, 0.873),
    ("dtd10", "test"): (0.858, 0.852),
    ("streetchars", "test"): (0.891, 0.908),
    ("houses_resize", "test"): (0.895, 0.918),
    ("houses_crop", "test"): (0.901, 0.944),
    ("camvid", "test"): (0.915, 0.964),
    ("imagenet_sample", "test"): (0.841, 0.852),
    ("faces", "test"): (0.841, 0.873),
    ("emnist_letters", "test"): (0.925, 0.969),
    ("caltech", "train"): (0.888, 0.913),
    ("tiny_imagenet_jpeg32", "train"): (0.875, 0.894),
}


def _import(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/import_checkpoint.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _imported(packs: Path, outputs: Path, depth: int) -> Run:
    file = packs / f"checkpoints/cifar10_resnet{depth}.th"
    options = ["--backbone", f"resnet{depth}", "--transform", "imagenet_stats", "--id", "cifar10"]
    done = _import([str(file), *options, "--outputs", str(outputs)])
    assert done.returncode == 0, done.stderr
    return open_run(outputs / f"runs/imported-cifar10_resnet{depth}")


@pytest.fixture(scope="module")
def resnet56(packs: Path, data_paths: DataPaths, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Outputs]:
    run = _imported(packs, tmp_path_factory.mktemp("imported"), 56)
    return run, collect(run.model(CPU), run.transform(), open_dataset("cifar10", "test", data_paths), CPU)


@pytest.mark.data
def test_resnet56_has_its_published_accuracy(resnet56: tuple[Run, Outputs]) -> None:
    assert round(accuracy(resnet56[1]), 4) == 0.9339


@pytest.mark.data
def test_resnet20_has_its_published_accuracy(packs: Path, data_paths: DataPaths, tmp_path: Path) -> None:
    run = _imported(packs, tmp_path, 20)
    outputs = collect(run.model(CPU), run.transform(), open_dataset("cifar10", "test", data_paths), CPU)
    assert round(accuracy(outputs), 4) == 0.9173


def _first(image_set: ImageSet) -> ImageSet:
    step = 6 if image_set.name == "tiny_imagenet_jpeg32" else 1
    return image_set.subset(np.arange(0, len(image_set), step)[:5000])


@pytest.mark.data
@pytest.mark.parametrize("name", SANITY, ids=lambda name: name[0])
def test_resnet56_agrees_with_the_sanity_values(
    resnet56: tuple[Run, Outputs], data_paths: DataPaths, name: tuple[str, str]
) -> None:
    run, full = resnet56
    half = Outputs(full.logits[::2], full.features[::2])
    ood = collect(run.model(CPU), run.transform(), _first(open_dataset(*name, data_paths)), CPU)
    for score, expected in zip((MSP(), Energy()), SANITY[name], strict=True):
        assert detection_metrics(score(half), score(ood))["auroc"] == pytest.approx(expected, abs=0.002)


def test_weights_that_do_not_fit_are_refused_with_the_differences(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"conv1.weight": torch.zeros(8, 3, 3, 3), "strange": torch.zeros(1)}, file)
    done = _import([str(file), "--backbone", "resnet20", "--id", "cifar10", "--outputs", str(tmp_path)])
    assert done.returncode == 2
    assert done.stderr.startswith("error: the weights do not fit CifarResNet")
    for part in ("missing", "unexpected: strange", "conv1.weight (8, 3, 3, 3) in the file"):
        assert part in done.stderr
    assert not (tmp_path / "runs").exists()


def test_files_that_are_no_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"not weights")
    for path in (file, tmp_path / "absent.pt"):
        done = _import([str(path), "--backbone", "resnet20", "--id", "cifar10", "--outputs", str(tmp_path)])
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "runs").exists()
