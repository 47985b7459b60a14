import errno
import hashlib
import io
import json
import multiprocessing
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from farout.data import available, open_dataset, open_verified, stored
from farout.data.catalogue import define
from farout.data.image_set import Decoded
from farout.data.pack import write_pack
from farout.data.pack_files import checksum_file
from farout.data.store import build, provider, store_folder
from farout.data.stored import verify
from farout.errors import ConfigError, FaroutError, MissingDataError, UnwritableError

MINE = "title: My set\nsource: pictures\n"


def test_own_data_set_is_two_lines_of_yaml(own, add_dataset, class_folders):
    add_dataset("mine", MINE)
    assert available("mine", "whatever", own)
    images = open_dataset("mine", "whatever", own)
    assert images.images.shape == (3, 3, 32, 32) and images.images.dtype == torch.uint8 and not images.raw
    assert images.classes == ("cat", "dog") and images.labels.tolist() == [0, 0, 1]
    assert images.info["title"] == "My set" and images.info["vote"] == "mine" and images.info["n"] == 3


def test_own_tar_and_flat_folder_and_split_folders(own, add_dataset, class_folders):
    with tarfile.open(class_folders.parent / "mine.tar", "w") as tar:
        tar.add(class_folders, "mine")
    add_dataset("tarred", "title: Tar\nsource: mine.tar\n")
    add_dataset("flat", "title: Flat\nsource: pictures/cat\n")
    add_dataset("parted", "title: Parted\nsource: pictures\n")
    assert open_dataset("tarred", "test", own).classes == ("cat", "dog")
    flat = open_dataset("flat", "test", own)
    assert len(flat) == 2 and flat.classes == ("all",)
    assert len(open_dataset("parted", "dog", own)) == 1  # a folder of the split's name is the split


def test_a_changed_source_is_read_again(own, add_dataset, class_folders):
    add_dataset("mine", MINE)
    assert len(open_dataset("mine", "test", own)) == 3
    (class_folders / "dog" / "d.png").write_bytes((class_folders / "cat" / "b.png").read_bytes())
    assert len(open_dataset("mine", "test", own)) == 4


def test_missing_data_says_what_to_type(here):
    assert not available("svhn", "test", here)
    with pytest.raises(MissingDataError) as error:
        open_dataset("svhn", "test", here)
    assert "python scripts/prepare_data.py svhn" in str(error.value)
    assert "--from FILE_OR_FOLDER" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(MissingDataError, match=r"prepare_data\.py svhn --split train_extra`"):
        open_dataset("svhn", "train_extra", here)


def test_opening_is_by_memory_map_and_cannot_change_the_store(here):
    first = open_dataset("digits", "test", here)
    first.images[0] = 7
    assert not torch.equal(open_dataset("digits", "test", here).images[0], first.images[0])


def test_subset_keeps_order_and_says_of_how_many(here):
    digits = open_dataset("digits", "test", here)
    few = digits.subset([5, 2])
    assert torch.equal(few.images[1], digits.images[2]) and few.labels[0] == digits.labels[5]
    assert few.info["n"] == 2 and few.info["of"] == len(digits) and digits.info["n"] == len(digits)


def test_nothing_is_left_when_building_fails(own, add_dataset):
    add_dataset("mine", "title: Mine\nsplits: {test: {pack: a.tar, size: 2}}\n")
    definition = define("mine", "test", own)

    def broken():
        raise FaroutError("no")

    for provide in (
        broken,
        lambda: Decoded(np.zeros((1, 3, 4, 4), np.uint8)),
        lambda: Decoded(np.zeros((2, 3, 4, 4))),
    ):
        with pytest.raises(FaroutError):
            build(definition, own, provide)
        assert [p for p in (own.store / "mine").iterdir() if p.suffix != ".lock"] == []


def test_what_a_killed_build_left_is_ignored_and_removed(here):
    definition = define("digits", "test", here)
    folder = store_folder(definition, here)
    debris = folder.parent / f".{folder.name}-building-killed"
    debris.mkdir(parents=True)
    (debris / "images.npy").write_bytes(b"half")
    assert len(open_dataset("digits", "test", here)) > 0
    assert not debris.exists()


def _spoil(path, name):
    """Ways in which a file of the store can be damaged; returns what was there."""
    content = path.read_bytes()
    if name == "inverted":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 0xFF]) + content[-8:])
    elif name == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "absent":
        path.unlink()
    elif path.suffix == ".json":
        path.write_text(json.dumps({**json.loads(content), "shape": 3, "facts": []}))
    else:
        np.save(path, np.load(path)[:1])


@pytest.mark.parametrize("how", ["inverted", "truncated", "empty", "absent", "other"])
@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "meta.json"])
def test_what_is_damaged_is_named_moved_aside_and_built_again(here, caplog, file, how):
    good = open_dataset("digits", "test", here)
    images, labels, folder = good.images.clone(), good.labels.clone(), good.folder
    verify(good)
    _spoil(folder / file, how)
    again = open_verified("digits", "test", here)
    assert torch.equal(again.images, images) and torch.equal(again.labels, labels)
    aside = folder.with_name(f"{folder.name}.damaged")
    if (file, how) == ("meta.json", "absent"):  # a folder without it is none that was ever complete
        return
    assert aside.is_dir()
    (said,) = [r.getMessage() for r in caplog.records if "moved to" in r.getMessage()]
    assert str(folder / file) in said and str(aside) in said and "built again" in said and "\n" not in said


def test_what_is_damaged_and_cannot_be_built_again_is_one_line(own, add_dataset, make_set):
    add_dataset("mine", "title: Mine\nsplits: {test: {pack: a.tar}}\n")
    write_pack(make_set(4), own.packs / "a.tar")
    folder = open_dataset("mine", "test", own).folder
    (own.packs / "a.tar").unlink()
    _spoil(folder / "labels.npy", "truncated")
    with pytest.raises(MissingDataError) as error:
        open_dataset("mine", "test", own)
    assert "labels.npy" in str(error.value) and "put a.tar into the packs folder" in str(error.value)
    assert "\n" not in str(error.value) and folder.with_name(f"{folder.name}.damaged").is_dir()


def test_a_store_of_before_labels_had_a_hash_is_taken_as_it_is(here):
    digits = open_dataset("digits", "test", here)
    meta = json.loads((digits.folder / "meta.json").read_text())
    assert meta.pop("labels_sha256") == hashlib.sha256(digits.labels.numpy().tobytes()).hexdigest()
    assert meta["sha256"] == hashlib.sha256(digits.images.numpy().tobytes()).hexdigest()
    (digits.folder / "meta.json").write_text(json.dumps({k: meta[k] for k in meta if k not in ("origin", "stamp")}))
    verify(open_dataset("digits", "test", here))


def test_a_full_or_read_only_disk_is_one_line_and_leaves_nothing(here, monkeypatch):
    for number, said in ((errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only")):
        real = stored.os.fsync

        def refuse(handle, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(stored.os, "fsync", refuse)
        with pytest.raises(UnwritableError) as error:
            open_dataset("digits", "test", here)
        assert said in str(error.value) and "FAROUT_DATA" in str(error.value) and "\n" not in str(error.value)
        assert [path.name for path in (here.store / "digits").iterdir() if path.suffix != ".lock"] == []
        monkeypatch.setattr(stored.os, "fsync", real)
    assert len(open_dataset("digits", "test", here)) == 378


def test_a_pack_that_was_replaced_is_noticed(own, add_dataset, make_set, caplog):
    add_dataset("mine", "title: Mine\nsplits: {test: {pack: a.tar}}\n")
    first, second = make_set(4), make_set(4, seed=1)
    write_pack(first, own.packs / "a.tar")
    opened = open_dataset("mine", "test", own)
    os.utime(own.packs / "a.tar", ns=(1, 1))  # a copy of the same content
    assert open_dataset("mine", "test", own).folder == opened.folder
    assert json.loads((opened.folder / "meta.json").read_text())["origin"]["mtime_ns"] == 1
    write_pack(second, own.packs / "a.tar")
    caplog.set_level("INFO")
    assert torch.equal(open_dataset("mine", "test", own).images, second.images)
    assert "a.tar is another file than before" in caplog.text
    (own.packs / "a.tar").write_bytes(b"no pack")  # what was built from a good one stays
    assert torch.equal(open_dataset("mine", "test", own).images, second.images)


def _build_slowly(paths, queue):
    import time

    def provide():
        queue.put("built")
        time.sleep(0.3)
        return Decoded(np.zeros((2, 3, 4, 4), np.uint8))

    build(define("mine", "test", paths), paths, provide)
    queue.put(len(open_dataset("mine", "test", paths)))


def test_two_processes_build_once(own, add_dataset):
    add_dataset("mine", "title: Mine\nsplits: {test: {pack: a.tar}}\n")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_build_slowly, args=(own, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    got = [queue.get(timeout=20) for _ in range(3)]
    for worker in workers:
        worker.join()
    assert sorted(map(str, got)) == ["2", "2", "built"]


def test_a_misspelt_function_is_a_config_error(own, add_dataset):
    add_dataset("mine", "title: Mine\nsplits: {test: {make: {_target_: farout.data.nothing.here}}}\n")
    with pytest.raises(ConfigError, match=r"farout\.data\.nothing\.here"):
        open_dataset("mine", "test", own)


@pytest.mark.data
def test_cifar_packs_have_the_published_statistics(data_paths):
    train = open_dataset("cifar10", "train", data_paths)
    assert train.images.shape == (50000, 3, 32, 32)
    assert np.bincount(train.labels.numpy()).tolist() == [5000] * 10
    assert train.classes[:3] == ("airplane", "automobile", "bird")
    counts = np.stack([np.bincount(train.images[:, c].numpy().ravel(), minlength=256) for c in range(3)])
    grey = np.arange(256) / 255
    mean = counts @ grey / counts.sum(1)
    assert mean == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=1e-8)
    assert np.sqrt(counts @ grey**2 / counts.sum(1) - mean**2) == pytest.approx(
        [0.24703223, 0.24348513, 0.26158784], abs=1e-8
    )


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "split", "count", "classes"),
    [
        ("cifar100", "train", 50000, 100),
        ("cifar100", "test", 10000, 100),
        ("dtd10", "test", 1200, 10),
        ("streetchars", "test", 3535, 62),
        ("houses_resize", "test", 2140, 4),
        ("houses_crop", "test", 2140, 4),
        ("camvid", "test", 701, 3),
        ("imagenet_sample", "test", 1000, 1),
        ("faces", "test", 435, 1),
        ("emnist_letters", "test", 2600, 26),
        ("miniplaces", "test", 4000, 100),
        ("celeba_half", "test", 2000, 1),
        ("tiny_imagenet_64_resize", "test", 2000, 200),
        ("tiny_imagenet_64_crop_no_cifar", "test", 1740, 174),
        ("mnist", "test", 2000, 10),
        ("fashion_mnist", "test", 2000, 10),
    ],
)
def test_packs_open_at_32(data_paths, name, split, count, classes):
    images = open_dataset(name, split, data_paths)
    assert images.images.shape == (count, 3, 32, 32) and len(images.classes) == classes
    assert images.labels.min() == 0 and images.labels.max() == classes - 1


@pytest.mark.data
def test_tiny_imagenet_is_cropped_or_resized_from_the_same_pictures(data_paths):
    """The centre of the 64 x 64 picture, or all of it."""
    with tarfile.open(data_paths.packs / "tinyimagenet64_val.tar.gz") as tar:
        name = "n01443537/val_1284.JPEG"
        picture = Image.open(io.BytesIO(tar.extractfile(name).read())).convert("RGB")
    crop = np.asarray(picture)[16:48, 16:48].transpose(2, 0, 1)
    small = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    for way, expected in (("crop", crop), ("resize", small)):
        assert np.array_equal(open_dataset(f"tiny_imagenet_64_{way}", "test", data_paths).images[0].numpy(), expected)


@pytest.mark.data
def test_a_part_of_a_set_says_that_it_is_one(data_paths):
    assert open_dataset("mnist", "test", data_paths).info["part"] == "2,000 of 10,000 images"


def _with_one_pack(own, add_dataset, make_set, tmp_path):
    """A catalogue with one set, its pack, and the pack's checksum; returns the pack."""
    write_pack(make_set(30), own.packs / "tiny.tar")
    checksum_file(own.packs / "tiny.tar").unlink()
    checksum = hashlib.sha256((own.packs / "tiny.tar").read_bytes()).hexdigest()
    add_dataset("tiny", f"title: Tiny\nsplits: {{test: {{pack: tiny.tar, pack_sha256: {checksum}, size: 30}}}}\n")
    return own.packs / "tiny.tar"


def test_a_pack_with_one_inverted_byte_is_refused(own, add_dataset, make_set, tmp_path):
    pack = _with_one_pack(own, add_dataset, make_set, tmp_path)
    good = pack.read_bytes()
    for place in (len(good) // 3, len(good) - 1):  # in an image, and in the padding behind the last
        damaged = bytearray(good)
        damaged[place] ^= 0xFF
        pack.write_bytes(damaged)
        with pytest.raises(FaroutError) as error:
            open_dataset("tiny", "test", own)
        seen, expected = (hashlib.sha256(content).hexdigest() for content in (damaged, good))
        assert str(pack) in str(error.value) and seen in str(error.value) and f"expected {expected}" in str(error.value)
        assert "\n" not in str(error.value) and not list(own.store.glob("tiny/test-*"))
    pack.write_bytes(good)
    assert len(open_dataset("tiny", "test", own)) == 30


def test_a_pack_of_your_own_is_known_by_the_checksum_beside_it(own, add_dataset, make_set, tmp_path):
    pack = _with_one_pack(own, add_dataset, make_set, tmp_path)
    mine = make_set(30, seed=1)
    write_pack(mine, pack)
    assert checksum_file(pack).read_text() == f"{hashlib.sha256(pack.read_bytes()).hexdigest()}  tiny.tar\n"
    assert torch.equal(open_dataset("tiny", "test", own).images, mine.images)
    pack.write_bytes(pack.read_bytes()[:-1] + b"x")
    with pytest.raises(FaroutError, match=r"tiny\.tar was not used: .*tiny\.tar\.sha256 says"):
        build(define("tiny", "test", own), own, provider(define("tiny", "test", own), own), force=True)
