"""Pictures of training: they are there, they show the buffer, and training never notices."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from farout.config.settings import LoggerSettings, Settings
from farout.data.transform import Transform
from farout.methods import JEM, CrossEntropy
from farout.report.figures.samples import mosaic, pixels
from farout.runs import training
from farout.runs.image_log import ImageLog
from farout.runs.logger import RunLogger

JEM_RUN = ["method=jem", "backbone=wrn_10_2_jem", "buffer_size=100", "sgld_steps=3", "evaluate=false"]


@pytest.fixture
def trained(settings: Callable[..., Settings], tmp_path: Path) -> Callable[[str], Path]:
    """The folder of a finished run of three steps, each place with its own."""

    def train(place: str) -> Path:
        more = [*JEM_RUN, "trainer.log_every=1"]
        own = settings(*more)
        paths = type(own.paths)(**{**vars(own.paths), "outputs": str(tmp_path / place)})
        training.train(type(own)(**{**vars(own), "paths": paths}))
        (folder,) = (tmp_path / place / "runs").glob("jem-*")
        return folder

    return train


def outcome(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "weights.safetensors").read_bytes(), (folder / "method.safetensors").read_bytes()


def test_training_with_and_without_pictures_is_the_same_to_the_bit(
    trained: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_pictures = trained("with")
    assert [path.name for path in sorted((with_pictures / "samples").iterdir())] == [
        f"buffer-000000{step}.png" for step in (1, 2, 3)
    ]
    monkeypatch.setattr(JEM, "log_images", lambda self: {})
    without = trained("without")
    assert not (without / "samples").exists()
    assert outcome(with_pictures) == outcome(without)


def test_whoever_shows_pictures_cannot_disturb_training(
    trained: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Vandal(ImageLog):
        def __call__(self, step: int, pictures: Any) -> None:
            assert torch.rand(5).shape == (5,) and np.random.rand() < 1
            for images in pictures.values():
                images.zero_()

    undisturbed = outcome(trained("quiet"))
    monkeypatch.setattr(training, "ImageLog", Vandal)
    assert outcome(trained("vandal")) == undisturbed


def test_the_last_picture_shows_the_buffer_that_the_run_keeps(trained: Callable[[str], Path]) -> None:
    folder = trained("run")
    images = load_file(folder / "method.safetensors")["replay_buffer.images"]
    rows = torch.arange(64) * 100 // 64
    expected = (127.5 * (images[rows].clamp(-1, 1) + 1)).round().to(torch.uint8)
    with Image.open(folder / "samples/buffer-0000003.png") as picture:
        assert np.array_equal(np.asarray(picture), mosaic(expected, 8))


def test_about_twenty_pictures_at_steps_that_the_length_decides(tmp_path: Path) -> None:
    told: list[int] = []
    transform = Transform([0.5] * 3, [0.5] * 3, False, 0)
    image_log = ImageLog(tmp_path, transform, 140_600, 50, lambda step, name, path: told.append(step))
    for step in [*range(50, 140_600, 50), 140_600]:
        image_log(step, {"buffer": torch.zeros(1, 3, 2, 2)})
    assert 15 <= len(told) <= 25 and told[-1] == 140_600
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"buffer-{step:07d}.png" for step in told]
    assert {later - before for before, later in pairwise(told[:-1])} == {7050}


def test_a_method_without_images_shows_none() -> None:
    assert CrossEntropy().log_images() == {}
    knobs: dict[str, Any] = dict.fromkeys(("p_x_weight", "p_y_given_x_weight", "sgld_lr"), 1.0)
    knobs |= {"p_x_y_weight": 0.0, "class_cond_p_x_sample": False, "buffer_size": 6, "reinit_freq": 0.05}
    knobs |= {"sgld_steps": 1, "sgld_std": 0.01, "clamp_gradient": None, "clamp_images": None}
    method = JEM(**knobs, sgld_precision="fp32", restart_sgld_steps=0)
    assert method.log_images() == {}
    method.replay_buffer.fill(torch.zeros(1, 3, 4, 4))
    images = method.log_images()["buffer"]
    assert torch.equal(images, method.replay_buffer.images)
    images.zero_()
    assert method.replay_buffer.images.abs().min() > 0


def test_pixels_undo_the_transform(tmp_path: Path) -> None:
    transform = Transform([0.1, 0.5, 0.9], [0.2, 0.25, 0.3], False, 0)
    given = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    assert torch.equal(pixels(transform(given), transform), given)
    wild = torch.tensor([float("nan"), float("inf"), -float("inf")]).view(1, 3, 1, 1)
    assert set(pixels(wild, Transform([0.5] * 3, [0.5] * 3, False, 0)).flatten().tolist()) <= {0, 255}


def test_wandb_gets_every_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[dict[str, Any]] = []

    class Wandb:
        def log(self, values: dict[str, Any]) -> None:
            logged.append(values)

        def define_metric(self, name: str, **options: Any) -> None:
            pass

    logger = RunLogger(tmp_path, LoggerSettings("none"), {})
    transform = Transform([0.5] * 3, [0.5] * 3, False, 0)
    images: dict[str, Tensor] = {"buffer": torch.zeros(4, 3, 8, 8)}
    ImageLog(tmp_path, transform, 1, 1, logger.picture)(1, images)
    assert not logged
    monkeypatch.setattr(wandb, "init", lambda **options: Wandb())
    logger = RunLogger(tmp_path, LoggerSettings("wandb"), {})
    ImageLog(tmp_path, transform, 1, 1, logger.picture)(1, images)
    (entry,) = logged
    assert entry["step"] == 1 and entry["pictures/buffer"].image.size == (22, 22)
