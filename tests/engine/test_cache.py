"""Cached outputs: found again, never mistaken, bounded on disk."""

import os
from dataclasses import replace

import pytest
import torch

from farout.data import ImageSet
from farout.engine.cache import GIB, OutputCache, network_key, output_key
from farout.scores import Outputs

CPU = torch.device("cpu")


def outputs(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Outputs(torch.randn(n, 3, generator=generator), torch.randn(n, 5, generator=generator))


def image_set(images=None, **more):
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4) if images is None else images
    return ImageSet("some", "test", images, None, (), more.pop("raw", False), **more)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"some weights")
    return path


def test_what_was_put_comes_back_with_the_sets_labels(tmp_path):
    cache, labels = OutputCache(tmp_path, 1.0), torch.arange(4)
    assert cache.get("key", labels) is None
    cache.put("key", outputs())
    found = cache.get("key", labels)
    assert torch.equal(found.logits, outputs().logits)
    assert torch.equal(found.features, outputs().features)
    assert found.labels is labels


def test_a_damaged_entry_is_no_entry(tmp_path):
    cache = OutputCache(tmp_path, 1.0)
    cache.put("key", outputs())
    path = next(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:20])
    assert cache.get("key", None) is None
    cache.put("key", outputs())
    assert cache.get("key", None) is not None


def test_the_oldest_go_first_and_use_makes_young(tmp_path):
    cache = OutputCache(tmp_path, 1.0)
    for age, key in enumerate(["a", "b", "c"]):
        cache.put(key, outputs())
        os.utime(tmp_path / f"{key}.safetensors", ns=(0, 10**9 * age))
    cache.get("a", None)
    size = (tmp_path / "a.safetensors").stat().st_size
    small = OutputCache(tmp_path, 3.2 * size / GIB)
    small.put("d", outputs())
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == ["a", "c", "d"]


@pytest.mark.parametrize("limit", [0.0, 50 / GIB])
def test_what_cannot_fit_is_not_kept(tmp_path, limit):
    cache = OutputCache(tmp_path / "cache", limit)
    cache.put("key", outputs())
    assert cache.get("key", None) is None
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_networks_key_changes_with_all_that_outputs_follow_from(weights):
    facts = {"backbone": {"depth": 20}, "transform": {"mean": [0.5]}}
    keys = {network_key(weights, facts, CPU)}
    keys.add(network_key(weights, {**facts, "transform": {"mean": [0.4]}}, CPU))
    keys.add(network_key(weights, {**facts, "backbone": {"depth": 56}}, CPU))
    keys.add(network_key(weights, facts, torch.device("cuda")))
    weights.write_bytes(b"some weightz")
    keys.add(network_key(weights, facts, CPU))
    assert len(keys) == 5


def test_the_sets_key_is_that_of_its_pixels_in_their_order():
    one = image_set()
    changed = one.images.clone()
    changed[1, 2, 3, 3] += 1
    others = [
        image_set(changed),
        one.subset([1, 0]),
        one.subset([0]),
        replace(one, raw=True),
        image_set(one.images.float()),
        image_set(one.images.view(2, 3, 2, 8)),
    ]
    keys = [output_key("network", each) for each in [one, *others]] + [output_key("another", one)]
    assert len(set(keys)) == len(keys)
    assert output_key("network", replace(one.subset([0, 1]), name="other")) == keys[0]
