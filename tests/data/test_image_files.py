"""Views of image files: parts of the original pictures, drawn as torchvision draws them, the same for every resume."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as official

from farout.data.cropped_views import CroppedViews
from farout.data.image_files import ImageFiles
from farout.data.pack import ResizeCrop
from farout.data.streams import EpochShuffle
from farout.data.transform import Transform
from farout.data.views import ViewTransform
from farout.engine.batches import DeviceBatches, Stream
from farout.engine.processes import ALONE
from farout.errors import FaroutError

CPU = torch.device("cpu")
WIDTH, HEIGHT = 240, 160


def views(**changes) -> ViewTransform:
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1), "views": 2, "size": 16, "crop_scale": (0.4, 1.0)}
    plain |= {"crop_ratio": (3 / 4, 4 / 3), "flip": False, "jitter": (0, 0, 0, 0)}
    return ViewTransform(**{**plain, "jitter_probability": 0.0, "grayscale_probability": 0.0, **changes})


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    """Six pictures whose red says the column and green the row, from 0 to 255; blue says which picture it is."""
    across = np.broadcast_to(np.linspace(0, 255, WIDTH), (HEIGHT, WIDTH))
    down = np.broadcast_to(np.linspace(0, 255, HEIGHT)[:, None], (HEIGHT, WIDTH))
    for i in range(6):
        pixels = np.stack([across, down, np.full((HEIGHT, WIDTH), 40.0 * i)], axis=2)
        Image.fromarray(np.rint(pixels).astype(np.uint8)).save(tmp_path / f"{i}.png")
    return ImageFiles(tmp_path, [f"{i}.png" for i in range(6)], ResizeCrop(16, 16), "digest")


def made(files: ImageFiles, transform: Transform, seed: int = 1) -> DeviceBatches:
    order = EpochShuffle(5, 2, seed, "labelled")
    rows = torch.tensor([0, 1, 3, 4, 5])
    return DeviceBatches({"labelled": Stream(files, torch.arange(6) * 10, rows, order)}, transform, seed, CPU, False)


def test_a_step_is_the_same_in_any_order_and_another_seed_is_another(files):
    straight, jumping = made(files, views(flip=True)), made(files, views(flip=True))
    expected = [straight(step)["labelled"] for step in range(6)]
    for step in (5, 2, 3, 3, 0):
        again = jumping(step)["labelled"]
        assert torch.equal(again.images, expected[step].images)
        assert torch.equal(again.labels, expected[step].labels)
    assert not torch.equal(made(files, views(flip=True), seed=2)(0)["labelled"].images, expected[0].images)


def test_labels_follow_all_first_views_then_all_second_ones(files):
    for step in range(6):
        batch = made(files, views())(step)["labelled"]
        assert len(batch.images) == 2 * (1 if step % 3 == 2 else 2), "the last batch of an epoch is short"
        which = (batch.images[:, 2].mean((1, 2)) * 255 / 40).round().long()
        assert torch.equal(which * 10, batch.labels)
        first, second = batch.images.chunk(2)
        assert not torch.equal(first, second)


def test_a_view_is_a_part_of_the_original_picture_to_the_bit(files):
    """The part is read off the colours, then cut out and resized by torchvision."""
    batches = CroppedViews(files, views(size=40, views=3), lambda step: torch.tensor([step % 6]), 1, "x", ALONE)
    for step in range(12):
        pixels = (batches(step, torch.Generator()) * 255).round().to(torch.uint8)
        for view in pixels:
            picture = files.picture(step % 6)
            (top, left, height, width) = _box(view)
            nearby = [
                official.resized_crop(picture, top + a, left + b, height + c, width + d, [40, 40])
                for a in (-1, 0, 1)
                for b in (-1, 0, 1)
                for c in (-2, -1, 0, 1, 2)
                for d in (-2, -1, 0, 1, 2)
            ]
            assert any(np.array_equal(np.asarray(part).transpose(2, 0, 1), view.numpy()) for part in nearby)


def _box(view: torch.Tensor) -> tuple[int, int, int, int]:
    """About which part of the picture a view shows, (top, left, height, width), by its colours' slopes."""
    size = view.shape[1]
    inner = slice(size // 4, size - size // 4)
    place = np.arange(size)[inner] + 0.5
    across, left = np.polyfit(place, view[0, 0, inner].double().numpy() * (WIDTH - 1) / 255 + 0.5, 1)
    down, top = np.polyfit(place, view[1, inner, 0].double().numpy() * (HEIGHT - 1) / 255 + 0.5, 1)
    return round(top), round(left), round(down * size), round(across * size)


def test_parts_are_distributed_as_torchvisions(files):
    """Kolmogorov-Smirnov at 0.1 % with fixed seeds: areas, ratios and places."""
    batches = CroppedViews(files, views(size=24, views=20), lambda step: torch.arange(6), 1, "x", ALONE)
    seen = torch.cat([batches(step, torch.Generator()) for step in range(5)])
    found = np.array([_box((view * 255).round()) for view in seen])
    torch.manual_seed(0)
    picture = files.picture(0)
    drawn = np.array([RandomResizedCrop.get_params(picture, [0.4, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    for measure in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0], lambda b: b[:, 1]):
        assert stats.ks_2samp(measure(found), measure(drawn)).pvalue > 0.001


def test_cropped_views_are_mirrored_and_changed_but_not_cropped_again(files):
    images = torch.stack([files[i] for i in range(6)]).repeat(20, 1, 1, 1)
    result = views(flip=True).augmented(images, torch.Generator().manual_seed(0), cropped=True)
    plain, mirrored = images / 255, images.flip(3) / 255
    kept = torch.tensor([torch.equal(a, b) for a, b in zip(result, plain, strict=True)])
    turned = torch.tensor([torch.equal(a, b) for a, b in zip(result, mirrored, strict=True)])
    assert bool((kept ^ turned).all())
    assert 40 < int(kept.sum()) < 80
    grey = views(grayscale_probability=1.0).augmented(images, torch.Generator().manual_seed(0), cropped=True)
    expected = official.rgb_to_grayscale(plain, 3)
    assert torch.allclose(grey, expected, atol=1e-6)


def test_other_transforms_see_the_pictures_as_at_test_time(files):
    plain = Transform((0, 0, 0), (1, 1, 1), flip=False, crop_padding=0)
    batches = made(files, plain)
    batch = batches(0)["labelled"]
    assert torch.equal(batch.images, files[batch.labels // 10] / 255)
    passed = list(batches.train_images())
    assert torch.equal(torch.cat([part.images for part in passed]), files[torch.tensor([0, 1, 3, 4, 5])] / 255)
    assert torch.equal(torch.cat([part.labels for part in passed]), torch.tensor([0, 10, 30, 40, 50]))


def test_a_file_that_is_no_picture_ends_training_with_its_name(files):
    (files.root / "3.png").write_text("no picture")
    batches = made(files, views())
    with pytest.raises(FaroutError, match=r"3\.png cannot be read"):
        for step in range(3):
            batches(step)
