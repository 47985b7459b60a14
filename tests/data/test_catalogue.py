import re

import pytest
import yaml
from torchvision import datasets

from farout.data import conflicts, dataset_names, default_paths, split_names
from farout.data.catalogue import define
from farout.errors import ConfigError


def test_every_entry_is_complete(here):
    for name in dataset_names(here):
        for split in split_names(name, here):
            own = define(name, split, here).own
            assert own.get("pack") or own.get("files") or own.get("make") or own.get("folder"), name
            assert bool(own.get("files")) == bool(own.get("read")), name
            for item in own.get("files") or []:
                assert "checksum" in item and item["urls"], name


def test_addresses_and_checksums_are_those_of_torchvision(here):
    def item(name, split, i=0):
        return define(name, split, here).own["files"][i]

    for name, loader in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        assert item(name, "train") == {"urls": [loader.url], "checksum": f"md5:{loader.tgz_md5}"}
    for split, i, part in (("train", 0, "train"), ("test", 0, "test"), ("train_extra", 1, "extra")):
        url, _, md5 = datasets.SVHN.split_list[part]
        assert item("svhn", split, i) == {"urls": [url], "checksum": f"md5:{md5}"}
    for name in ("textures", "textures_224"):
        assert item(name, "test") == {"urls": [datasets.DTD._URL], "checksum": f"md5:{datasets.DTD._MD5}"}
    for name, loader in (("mnist", datasets.MNIST), ("fashion_mnist", datasets.FashionMNIST)):
        found = [item(name, split, i) for split in ("train", "test") for i in (0, 1)]
        assert found == [
            {"urls": [mirror + file for mirror in loader.mirrors], "checksum": f"md5:{md5}"}
            for file, md5 in loader.resources
        ]
    archive, md5 = datasets.Places365._IMAGES_META[("test", True)]
    url = datasets.Places365._BASE_URL + archive
    assert item("places365", "test") == {"urls": [url], "checksum": f"md5:{md5}"}
    known = {name: (id_, md5) for id_, md5, name in datasets.CelebA.file_list}
    for i in (0, 1):
        got = item("celeba", "test", i)
        id_, md5 = known[got["name"]]
        assert got["urls"] == [f"gdrive://{id_}"] and got["checksum"] == f"md5:{md5}"


def test_unknown_names_are_one_line_errors(here):
    with pytest.raises(ConfigError, match=r"no data set 'cifar11'.*cifar10") as error:
        define("cifar11", "test", here)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="has no split 'val'; it has: train, test"):
        define("cifar10", "val", here)
    with pytest.raises(ConfigError, match="takes no argument"):
        define("cifar10@3", "test", here)


@pytest.mark.parametrize("text", ["title: a\nsplits: {test: {}}\nsauce: x", "source: x", "title: a", "title: [a"])
def test_a_broken_entry_is_a_config_error(own, add_dataset, text):
    add_dataset("broken", text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        define("broken", "test", own)


def test_key_depends_on_bytes_not_on_addresses(own, add_dataset):
    text = {"title": "A", "splits": {"test": {"pack": "a.tar", "files": [{"urls": ["x"]}], "resize": 32}}}

    def key(**changes):
        text["splits"]["test"].update(changes)
        add_dataset("a", yaml.safe_dump(text))
        return define("a", "test", own).key

    first = key()
    assert key(files=[{"urls": ["y"]}], size=3) == first
    assert key(resize=64) != first


def test_argument_replaces_the_parameter(here):
    assert define("blobs@500", "test", here).own["make"]["count"] == 500
    assert define("corruption_jigsaw@digits", "train", here).own["make"]["base"] == "digits"
    assert define("blobs@500", "test", here).title == "Blobs (500)"


def test_conflicts(here):
    assert "Caltech" in conflicts("faces", "caltech", here)
    assert conflicts("imagenet_sample", "tiny_imagenet_jpeg32_no_cifar", here)
    assert "supplied" in conflicts("cifar100", "cifar100", here)
    for outliers in ("tiny_imagenet", "tiny_imagenet_jpeg32", "tiny_imagenet_jpeg32_no_cifar"):
        for way in ("resize", "crop", "resize_no_cifar", "crop_no_cifar"):
            assert "the same classes" in conflicts(f"tiny_imagenet_64_{way}", outliers, here)
    for pair in [("faces", "cifar100"), ("cifar100", "caltech"), ("dtd10", None), ("dtd10", "none")]:
        assert conflicts(*pair, here) is None


def test_the_genuine_list_has_nine_votes_and_the_stand_ins_keep_theirs(here):
    """Recorded means over the stand-in sets are found again only while their votes stay."""
    votes = {
        name: {
            define(each, "test", here).vote
            for each in yaml.safe_load((here.conf / f"ood_data/{name}.yaml").read_text())["sets"]
        }
        for name in ("genuine", "stand_in")
    }
    assert votes["genuine"] == {
        *("miniplaces", "celeba_half", "tiny_imagenet_64", "mnist_and_fashion", "dtd10", "cifar100"),
        *("gaussian", "rademacher", "blobs"),
    }
    assert votes["stand_in"] == {
        *("dtd10", "streetchars", "houses", "camvid", "imagenet_sample", "faces", "emnist_letters", "cifar100"),
    }


def test_every_pack_at_hand_has_a_checksum(here):
    named = {
        define(name, split, here).own.get("pack"): define(name, split, here).own.get("pack_sha256")
        for name in dataset_names(here)
        for split in split_names(name, here)
    }
    known = {pack for pack, checksum in named.items() if checksum}
    assert len(known) == 17 and all(re.fullmatch("[0-9a-f]{64}", named[pack]) for pack in known)


def test_houses_share_a_vote(here):
    votes = {name: define(name, "test", here).vote for name in ("houses_crop", "houses_resize", "dtd10")}
    assert votes == {"houses_crop": "houses", "houses_resize": "houses", "dtd10": "dtd10"}


def test_default_paths(tmp_path, monkeypatch):
    monkeypatch.delenv("FAROUT_DATA", raising=False)
    monkeypatch.delenv("FAROUT_PACKS", raising=False)
    root = tmp_path / "repository"
    assert default_paths(root).store == root / "data" and default_paths(root).packs is None
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert default_paths(root).packs == root.parent / "shared" / "data"
    (root / "packs").mkdir(parents=True)
    assert default_paths(root).packs == root / "packs"
    monkeypatch.setenv("FAROUT_PACKS", str(tmp_path))
    monkeypatch.setenv("FAROUT_DATA", str(tmp_path / "elsewhere"))
    assert default_paths(root).packs == tmp_path and default_paths(root).store == tmp_path / "elsewhere"
