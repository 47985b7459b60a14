import numpy as np

from farout.data import open_dataset
from farout.data.duplicates import find_duplicates
from farout.data.shipped import _enlarge


def test_digits_split_is_fixed_stratified_and_disjoint(here):
    train, test = open_dataset("digits", "train", here), open_dataset("digits", "test", here)
    assert train.classes == ("0", "1", "2", "4", "5", "6", "7") and len(train) + len(test) == 1260
    share = np.bincount(train.labels) / (np.bincount(train.labels) + np.bincount(test.labels))
    assert np.abs(share - 0.7).max() < 0.01
    assert len(find_duplicates([train], test)) == 0
    heldout = open_dataset("digits_heldout", "test", here)
    assert heldout.classes == ("3", "8", "9") and len(heldout) + 1260 == 1797


def test_levels_are_the_digits_own(here):
    from sklearn.datasets import load_digits

    assert load_digits().images.max() == 16
    images = open_dataset("digits", "train", here).images
    assert images.max() == 255 and images.min() == 0


def test_neither_colour_nor_resolution_gives_photographs_away(here):
    # enlarging 8 x 8 is linear: but for rounding, all such images lie in the same 64 dimensions of 1,024
    impulses = _enlarge(16 * np.eye(64).reshape(64, 8, 8), 32)[:, 0].reshape(64, -1)
    basis = np.linalg.qr(impulses.T.astype(float))[0]
    for name, split in [
        ("digits", "train"),
        ("china_patches", "test"),
        ("hopper_patches", "test"),
        ("flower_patches", "train"),
    ]:
        images = open_dataset(name, split, here).images.numpy()
        assert np.array_equal(images[:, 0], images[:, 1]) and np.array_equal(images[:, 0], images[:, 2])
        rows = images[:200, 0].reshape(200, -1).astype(float)
        assert np.abs(rows - rows @ basis @ basis.T).mean() < 1


def test_outliers_are_many_distinct_and_of_another_photo(here):
    outliers = open_dataset("flower_patches", "train", here)
    assert len(outliers) >= 2000
    assert len(np.unique(outliers.images.numpy().reshape(len(outliers), -1), axis=0)) == len(outliers)
    for name in ("china_patches", "hopper_patches"):
        assert len(find_duplicates([outliers], open_dataset(name, "test", here))) == 0
