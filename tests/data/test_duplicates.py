import time

import numpy as np
import pytest
import torch

from farout.data import open_dataset
from farout.data.duplicates import find_duplicates, image_hashes


def test_exact_duplicates_only(make_set):
    from dataclasses import replace

    first, second = make_set(5), make_set(6, seed=1)
    second.images[4], second.images[1] = first.images[2], first.images[0]
    second.images[0] = first.images[0]
    second.images[0, 0, 0, 0] += 1  # one grey level off is another image
    assert find_duplicates([first], second).tolist() == [1, 4]
    assert find_duplicates([], second).tolist() == []
    larger = replace(first, images=torch.zeros(2, 3, 9, 9, dtype=torch.uint8))
    assert find_duplicates([first, larger], second).tolist() == [1, 4]


def test_hashes_are_kept_beside_the_store(here):
    digits = open_dataset("digits", "test", here)
    fresh = image_hashes(digits)
    assert (digits.folder / "hashes.npy").is_file()
    assert np.array_equal(image_hashes(open_dataset("digits", "test", here)), fresh)
    assert np.array_equal(image_hashes(digits.subset([3, 1])), fresh[[3, 1]])


@pytest.mark.data
def test_known_duplicates_between_the_cifar_sets(data_paths):
    sets = {(n, s): open_dataset(n, s, data_paths) for n in ("cifar10", "cifar100") for s in ("train", "test")}
    start = time.perf_counter()
    image_hashes(sets["cifar10", "train"])
    assert time.perf_counter() - start < 2

    def count(a, b):
        return len(find_duplicates([sets[a]], sets[b]))

    assert count(("cifar100", "train"), ("cifar100", "test")) == 10
    assert count(("cifar10", "train"), ("cifar100", "test")) == 1
    assert count(("cifar10", "test"), ("cifar100", "test")) == 1
    assert count(("cifar10", "test"), ("cifar100", "train")) == 1
