"""The forms in which users have images, all of which give the network the same input."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor, v2

import farout
from farout.data import ImageSet
from farout.data.given import input_batches, normalisation_std, number_of
from farout.errors import FaroutError


def joined(given: Any, transform: Any, size: int = 7) -> tuple[Tensor, Tensor | None]:
    batches = list(input_batches(given, transform, size))
    labels = [batch.labels for batch in batches]
    return torch.cat([b.images for b in batches]), None if None in labels else torch.cat(labels)


@pytest.fixture(scope="module")
def wanted(photos: np.ndarray, transform: v2.Transform) -> Tensor:
    return torch.stack([transform(Image.fromarray(photo)) for photo in photos[:16]])


@pytest.fixture(scope="module")
def folder(photos: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 files in two folders of classes."""
    root = tmp_path_factory.mktemp("photos")
    for index, photo in enumerate(photos[:16]):
        (root / f"c{index // 8}").mkdir(exist_ok=True)
        Image.fromarray(photo).save(root / f"c{index // 8}/{index:02d}.png")
    return root


def test_every_form_gives_the_same_input(
    photos: np.ndarray, transform: v2.Transform, wanted: Tensor, folder: Path
) -> None:
    some = photos[:16]
    first = torch.from_numpy(np.moveaxis(some, -1, 1).copy())
    forms = [some, np.moveaxis(some, -1, 1), first, list(some), [Image.fromarray(each) for each in some], folder]
    forms += [str(folder), sorted(folder.rglob("*.png")), ImageSet("own", "", first, None, (), raw=False)]
    for given in forms:
        images, labels = joined(given, transform)
        assert torch.equal(images, wanted) and labels is None, type(given)
    assert torch.equal(joined(some[0], transform)[0], wanted[:1]), "one picture"
    floats, _ = joined(first / 255, transform)
    assert torch.allclose(floats, wanted, atol=0.02), "without rounding in between"


def test_data_sets_and_loaders_bring_labels(transform: v2.Transform, wanted: Tensor, folder: Path) -> None:
    pictures, ready = ImageFolder(folder), ImageFolder(folder, transform)
    for given in (pictures, ready, DataLoader(ready, batch_size=5), DataLoader(ready, batch_size=16)):
        images, labels = joined(given, transform)
        assert torch.equal(images, wanted) and labels is not None
        assert labels.tolist() == [0] * 8 + [1] * 8
        assert number_of(given) == 16
    assert torch.equal(joined(TensorDataset(wanted), None)[0], wanted), "one tensor, no label"
    assert torch.equal(joined(wanted, None)[0], wanted)


class Stream(IterableDataset):
    """Has no length, and no item by number."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        yield from ((image, 3) for image in self.images)


def test_a_data_set_without_a_length_is_read_to_its_end(wanted: Tensor) -> None:
    for given in (Stream(wanted), DataLoader(Stream(wanted), batch_size=5)):
        images, labels = joined(given, None)
        assert torch.equal(images, wanted) and labels is not None and labels.tolist() == [3] * 16
        assert number_of(given) is None


def test_a_generator_is_refused_for_it_would_be_read_once_alone(photos: np.ndarray, transform: v2.Transform) -> None:
    with pytest.raises(FaroutError, match="read more than once: give a list"):
        joined((photo for photo in photos), transform)


class Words(Dataset):
    """Labels that are no numbers."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return torch.zeros(3, 4, 4), "cat"


def test_labels_that_are_no_whole_numbers_are_none(wanted: Tensor) -> None:
    assert joined(Words(), None)[1] is None
    assert joined(TensorDataset(wanted, torch.rand(16)), None)[1] is None
    assert joined(TensorDataset(wanted, torch.eye(16)), None)[1] is None
    assert joined(DataLoader(Words(), batch_size=2), None)[1] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((4, 5, 6, 7)), r"is \(H, W, 3\) or \(3, H, W\).* one of \(5, 6, 7\)"),
        ([np.zeros((9, 9, 3), np.int32)], "pictures of torch.int32"),
        ([torch.full((3, 9, 9), 2.0)], r"must lie in \[0, 1\]"),
        ([object()], "object is no picture"),
        (["nowhere.png"], "nowhere.png is not there"),
        (DataLoader(TensorDataset(torch.zeros(4, 3, 9, 9, dtype=torch.uint8))), "a DataLoader has to give float"),
    ],
)
def test_what_is_no_image_is_refused(given: Any, said: str, transform: v2.Transform) -> None:
    with pytest.raises(FaroutError, match=said):
        joined(given, transform)


def test_sets_of_the_catalogue_are_given_by_what_loads_them(
    transform: v2.Transform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FaroutError, match=r'digits is not there: .*farout\.load_dataset\("digits"\)'):
        joined("digits", transform)
    monkeypatch.setenv("FAROUT_DATA", str(tmp_path))
    digits, noise = farout.load_dataset("digits"), farout.load_dataset("gaussian@20", side=24)
    found, labels = joined(digits, transform, 50)
    assert found.shape == (len(digits), 3, 24, 24) and torch.equal(labels, digits.labels)
    assert torch.equal(joined(noise, transform)[0], noise.images), "fed as it is"
    with pytest.raises(farout.ConfigError, match=r"near it are gaussian, .*--list"):
        farout.load_dataset("gausian")


def test_transforms_that_do_not_fit_are_named(photos: np.ndarray, wanted: Tensor) -> None:
    with pytest.raises(FaroutError, match="is not the network's input"):
        joined(photos, None)
    with pytest.raises(FaroutError, match=r"transform makes torch\.uint8"):
        joined(photos, v2.PILToTensor())
    with pytest.raises(FaroutError, match=r"transform does not take a float tensor of size 24 x 24: .*PIL"):
        joined(wanted.sigmoid(), ToTensor())
    sizes = [Image.fromarray(photos[0]), Image.fromarray(photos[0]).resize((9, 9))]
    with pytest.raises(FaroutError, match="different shapes"):
        joined(sizes, v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]))


def test_the_deviation_of_a_normalisation_is_found(transform: v2.Transform) -> None:
    assert normalisation_std(transform) == pytest.approx((0.2, 0.25, 0.3))
    assert normalisation_std(v2.Compose([v2.Resize(3), transform])) == pytest.approx((0.2, 0.25, 0.3))
    assert normalisation_std(v2.Resize(3)) is None and normalisation_std(None) is None
