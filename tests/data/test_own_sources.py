"""Your own images: which part of a folder or archive is a split, class numbers, sizes, and what has changed since."""

import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from farout.data import open_dataset
from farout.data.catalogue import define
from farout.data.prepare import splits_to_prepare
from farout.errors import ConfigError, FaroutError

MINE = "title: Mine\nsource: mine\n"


@pytest.fixture
def paint(own):
    """Write pictures of one colour each: paint("train/cat", 2) makes two; other files on later calls."""
    count = iter(range(1000))

    def paint(folder: str, n: int = 1, size: tuple[int, int] = (32, 32), value: int | None = None) -> list[Path]:
        place = own.conf.parent / "mine" / folder
        place.mkdir(parents=True, exist_ok=True)
        paths = []
        for _ in range(n):
            i = next(count)
            paths.append(place / f"{i:03d}.png")
            Image.new("RGB", size, (i if value is None else value, 0, 0)).save(paths[-1])
        return paths

    return paint


def archived(own, kind: str, wrapped: bool) -> str:
    """`mine` as an archive, with or without a folder around all of it; the line of the YAML that names it."""
    root = own.conf.parent / "mine"
    files = [(path, path.relative_to(root)) for path in sorted(root.rglob("*.png"))]
    target = own.conf.parent / f"photos.{kind}"
    above = Path("some_name") if wrapped else Path()
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path, name in files:
                archive.write(path, above / name)
    else:
        with tarfile.open(target, "w:gz" if kind.endswith("gz") else "w") as tar:
            for path, name in files:
                tar.add(path, above / name)
    return f"source: {target.name}\n"


def form(own, how: str) -> str:
    return "source: mine\n" if how == "folder" else archived(own, how.split()[0], how.endswith("wrapped"))


FORMS = ["folder", "tar", "zip", "tar.gz wrapped", "zip wrapped"]


@pytest.mark.parametrize("how", FORMS)
def test_test_classes_have_their_numbers_of_training(own, add_dataset, paint, how):
    """Numbered on their own, dog and owl would be 0 and 1: a network that is always right would have accuracy 0."""
    for folder in ("train/cat", "train/dog", "train/owl", "test/dog", "test/owl"):
        paint(folder, 2)
    add_dataset("mine", "title: Mine\n" + form(own, how))
    train, test = (open_dataset("mine", split, own) for split in ("train", "test"))
    assert train.classes == test.classes == ("cat", "dog", "owl")
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2] and test.labels.tolist() == [1, 1, 2, 2]
    assert test.images[:, 0, 0, 0].tolist() == [6, 7, 8, 9]
    assert test.info["splits"] == {"test": test.info["splits"]["test"]} and "test" in test.info["splits"]["test"]
    paint("test/emu")
    add_dataset("mine", "title: Mine\n" + form(own, how))
    with pytest.raises(ConfigError, match="class emu is unknown to training, which has cat, dog, owl") as error:
        open_dataset("mine", "test", own)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", FORMS)
@pytest.mark.parametrize(
    ("folders", "split", "there"),
    [
        (("train/cat", "val/cat"), "test", "train, val but no test"),
        (("train/cat", "valid/cat"), "test", "train, valid but no test"),
        (("test/cat", "val/cat"), "train", "test, val but no train"),
        (("train", "val"), "test", "train, val but no test"),
        (("Training/cat", "Validation/cat"), "train", "Training, Validation but no train"),
        (("train/cat", "extra/cat"), "test", "extra, train but no test"),
        (("train/cat",), "test", "train but no test"),
    ],
)
def test_a_split_that_is_not_there_is_never_replaced_by_the_whole(own, add_dataset, paint, how, folders, split, there):
    for folder in folders:
        paint(folder)
    add_dataset("mine", "title: Mine\n" + form(own, how))
    with pytest.raises(ConfigError) as error:
        open_dataset("mine", split, own)
    assert there in str(error.value) and f"`splits: {{{split}: " in str(error.value) and "\n" not in str(error.value)
    assert not list(own.store.glob("mine/[!.]*"))


@pytest.mark.parametrize("how", FORMS)
def test_folders_of_splits_may_have_other_names(own, add_dataset, paint, how):
    for folder in ("train/cat", "train/dog", "val/dog"):
        paint(folder)
    add_dataset("mine", "title: Mine\nsplits: {test: val}\n" + form(own, how))
    test = open_dataset("mine", "test", own)
    assert test.labels.tolist() == [1] and test.classes == ("cat", "dog") and "val" in test.info["splits"]["test"]
    assert open_dataset("mine", "train", own).labels.tolist() == [0, 1]


def test_a_set_without_folders_for_splits_is_all_of_it(own, add_dataset, paint):
    """As an OOD set, whose split is `test`, or as outliers; the names of splits may also be those of classes."""
    for folder in ("car", "plane"):
        paint(folder)
    add_dataset("mine", MINE)
    assert open_dataset("mine", "test", own).classes == open_dataset("mine", "train", own).classes == ("car", "plane")
    paint("train")  # on rails
    assert open_dataset("mine", "test", own).classes == ("car", "plane", "train")
    with pytest.raises(ConfigError, match=r"train may be a class or a split: write `splits: {train: train}`"):
        open_dataset("mine", "train", own)
    add_dataset("mine", MINE + "splits: {train: .}\n")
    assert open_dataset("mine", "train", own).classes == ("car", "plane", "train")


@pytest.mark.parametrize("how", ["folder", "tar"])
def test_a_share_of_each_class_is_held_out(own, add_dataset, paint, how):
    for folder, n in (("cat", 10), ("dog", 5), ("owl", 1)):
        paint(folder, n)
    add_dataset("mine", "title: Mine\nsplits: {holdout: 0.2}\n" + form(own, how))
    train, test = (open_dataset("mine", split, own) for split in ("train", "test"))
    assert np.bincount(test.labels, minlength=3).tolist() == [2, 1, 0]
    assert np.bincount(train.labels).tolist() == [8, 4, 1]
    values = [set(part.images[:, 0, 0, 0].tolist()) for part in (train, test)]
    assert not values[0] & values[1] and len(values[0] | values[1]) == 16
    assert test.classes == train.classes == ("cat", "dog", "owl")
    assert test.info["splits"] == train.info["splits"] == {"holdout": 0.2, "seed": 0}
    assert test.images[:, 0, 0, 0].tolist() == [6, 9, 14], "drawn once and for all"
    assert splits_to_prepare("mine", None, own) == ["train", "test"]
    with pytest.raises(ConfigError, match="has no split 'val'; it has: train, test"):
        open_dataset("mine", "val", own)


def test_a_rule_that_does_not_fit_is_one_line(own, add_dataset, paint):
    paint("train/cat", 2)
    for rule in (
        "{holdout: 2}",
        "{holdout: 0.2, test: val}",
        "{test: 3}",
        "[train]",
        "{holdout: yes}",
        "{test: {}, a: b}",
    ):
        add_dataset("mine", f"{MINE}splits: {rule}\n")
        with pytest.raises(ConfigError, match=r"mine\.yaml: ") as error:
            define("mine", "test", own)
        assert "\n" not in str(error.value)
    for rule, said in (("{holdout: 0.5}", "no folders for its splits"), ("{test: absent}", "train but no absent")):
        add_dataset("mine", f"{MINE}splits: {rule}\n")
        with pytest.raises(ConfigError, match=said):
            open_dataset("mine", "test", own)


@pytest.mark.parametrize("how", ["folder", "zip"])
def test_what_is_declared_is_what_happens(own, add_dataset, paint, how):
    """64-pixel images that were to be cropped and those that were to be resized were the same set once."""
    (path,) = paint("cat", 1, (64, 64))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    source = form(own, how)
    small = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    for declared, expected in (
        ("crop: 32", pixels[16:48, 16:48]),
        ("resize: 32", small),
        ("resize: 64\ncrop: 64", pixels),
        ("", pixels),  # of one square size: as they are
    ):
        add_dataset("mine", f"title: Mine\n{source}{declared}\n")
        got = open_dataset("mine", "test", own)
        assert np.array_equal(got.images[0].numpy(), expected.transpose(2, 0, 1)), declared
        assert ("as its YAML says" in got.info["sizes"]) == bool(declared)
    assert got.info["sizes"] == "all images are 64 x 64 and stay so"
    assert np.array_equal(open_dataset("mine", "test", own, side=32).images[0].numpy(), small.transpose(2, 0, 1))


def test_sizes_are_said_where_a_set_is_built(own, add_dataset, paint, caplog):
    caplog.set_level("INFO")
    paint("a", 1, (64, 64))
    paint("b", 1, (50, 40))
    add_dataset("mine", MINE)
    assert open_dataset("mine", "test", own).info["side"] == 32
    assert "Mine (test): shorter side to 32, centre crop 32" in caplog.text and "several sizes" in caplog.text
    assert open_dataset("mine", "test", own, side=48).info["side"] == 48
    add_dataset("mine", MINE + "resize: 32\n")
    shutil.rmtree(own.conf.parent / "mine/a")
    with pytest.raises(ConfigError, match="its images are 40 x 32 pixels: add `crop: 32`"):
        open_dataset("mine", "test", own)


def test_train_and_test_get_one_size(own, add_dataset, paint):
    """Training images of one size stay as they are only where those of the test do too."""
    paint("train/cat", 2, (64, 64))
    paint("test/cat", 2, (64, 50))
    add_dataset("mine", MINE)
    assert {open_dataset("mine", split, own).info["side"] for split in ("train", "test")} == {32}


def test_generated_images_have_the_side_that_is_asked_for(here):
    plain = open_dataset("gaussian@2", "test", here)
    assert open_dataset("gaussian@2", "test", here, side=32).folder == plain.folder
    large = open_dataset("gaussian@2", "test", here, side=48)
    assert large.info["side"] == 48 and large.folder != plain.folder
    assert open_dataset("corruption_jigsaw@gaussian@2", "test", here, side=48).info["side"] == 48


CHANGES = {
    "overwritten": lambda paths: Image.new("RGB", (32, 32), (200, 9, 9)).save(paths[0]),
    "added": lambda paths: shutil.copy(paths[0], paths[0].with_name("new.png")),
    "removed": lambda paths: paths[0].unlink(),
    "renamed": lambda paths: paths[0].rename(paths[0].with_name("zzz.png")),
    "linked": lambda paths: Image.new("RGB", (32, 32), (201, 9, 9)).save(paths[-1].resolve()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("depth", ["", "cat", "train/cat/deep/down"])
def test_a_change_of_any_file_builds_the_set_anew(own, add_dataset, paint, change, depth):
    paths = paint(depth, 3)
    elsewhere = own.conf.parent / "elsewhere.png"
    shutil.move(paths[-1], elsewhere)
    paths[-1].symlink_to(elsewhere)
    add_dataset("mine", MINE)
    before = open_dataset("mine", "train", own)
    kept = before.images.clone()
    add_dataset(
        "inverted",
        "title: I\nsplits: {train: {make: {_target_: farout.data.corruptions.corrupted, kind: invert, base: mine}}}\n",
    )
    made = open_dataset("inverted", "train", own) if depth == "cat" else None
    CHANGES[change](paths)
    after = open_dataset("mine", "train", own)
    assert after.info["sha256"] != before.info["sha256"]
    assert torch.equal(before.images, kept), "what is open stays what it was"
    if made is not None:
        assert open_dataset("inverted", "train", own).info["base_sha256"] == after.info["sha256"]


def test_an_archive_that_was_replaced_is_built_anew_and_old_stores_do_not_pile_up(own, add_dataset, paint):
    for _ in range(4):
        paint("cat", 2)
        add_dataset("mine", "title: Mine\n" + archived(own, "tar", wrapped=False))
        found = open_dataset("mine", "test", own)
        open_dataset("mine", "test", own, side=8)
    assert len(found) == 8
    kept = [path for path in (own.store / "mine").iterdir() if path.is_dir()]
    assert len(kept) <= 4 and found.folder in kept


def test_what_is_made_from_a_set_of_the_catalogue_follows_it(own, add_dataset, make_set):
    from farout.data.catalogue import define
    from farout.data.image_set import Decoded
    from farout.data.store import build

    add_dataset("tiny", "title: Tiny\nsplits: {test: {pack: none.tar}}\n")
    add_dataset(
        "made",
        "title: M\nsplits: {test: {make: {_target_: farout.data.corruptions.corrupted, kind: invert, base: tiny}}}\n",
    )
    definition = define("tiny", "test", own)
    for seed in (0, 1):
        images = make_set(3, seed=seed).images.numpy()
        build(definition, own, lambda images=images: Decoded(images), force=True)
        made = open_dataset("made", "test", own)
        assert np.array_equal(made.images[:, 1].numpy(), 255 - images[:, 1])


def test_a_name_never_leads_out_of_the_store(here):
    for name in (
        "../cifar10",
        "blobs@../../x",
        "a/b",
        ".hidden",
        "blobs@",
        "blobs@x",
        "blobs@0",
        "blobs@-3",
        "blobs@1e9",
    ):
        with pytest.raises(ConfigError) as error:
            open_dataset(name, "test", here)
        assert "\n" not in str(error.value)
    assert not here.store.exists()


@pytest.mark.parametrize(
    "text",
    [
        "title: a\nsource: 3\n",
        "title: a\nsource: x\nresize: big\n",
        "title: a\nsource: x\ncrop: 0\n",
        "title: a\nsource: x\nfilter: smooth\n",
        "title: a\nsplits: [a, b]\n",
        "title: a\nsplits: {test: 3}\n",
        "title: a\nsplits: {test: {make: {kind: gaussian}}}\n",
        "title: a\nsplits: {test: {make: 3}}\n",
        "title: \xff\n",
    ],
)
def test_values_of_the_wrong_kind_are_one_line(own, text):
    (own.conf / "dataset/bad.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"bad\.yaml") as error:
        define("bad", "test", own)
    assert "\n" not in str(error.value)


def test_a_store_that_is_only_read_opens(own, add_dataset, paint, monkeypatch):
    paint("cat", 2)
    add_dataset("mine", MINE)
    first = open_dataset("mine", "test", own)

    def refuse(*_, **__):
        raise OSError(30, os.strerror(30))

    for name in ("mkdir", "replace", "rename", "open"):
        real = getattr(os, name)
        writes = (
            refuse
            if name != "open"
            else lambda p, flags, *a, _real=real, **k: refuse() if flags & 3 else _real(p, flags, *a, **k)
        )
        monkeypatch.setattr(os, name, writes)
    again = open_dataset("mine", "test", own)
    assert again.info == first.info
    paint_more = own.conf.parent / "mine/cat/more.png"
    monkeypatch.undo()
    Image.new("RGB", (32, 32)).save(paint_more)
    monkeypatch.setattr("farout.data.store.FileLock.acquire", refuse)
    with pytest.raises(FaroutError, match=r"the store .* cannot be written \(the disk is read-only\)"):
        open_dataset("mine", "test", own)


def test_facts_are_json(own, add_dataset, paint):
    paint("cat", 2)
    add_dataset("mine", MINE)
    info = open_dataset("mine", "test", own).info
    assert json.loads(json.dumps(info)) == info and info["splits"] == {"test": "whole"}
