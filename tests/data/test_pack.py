import hashlib
import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from farout.data.pack import ResizeCrop, class_folders, is_pack, read_images, write_pack
from farout.errors import FaroutError


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_round_trip_is_lossless_and_deterministic(tmp_path, make_set, suffix):
    images = make_set(1200, side=32, classes=2)
    images.images[3] = 0  # flat images and pure black survive too
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_pack(images, first)
    write_pack(images, second)
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    assert is_pack(first)
    with tarfile.open(first) as tar:
        heights = [Image.open(io.BytesIO(tar.extractfile(m).read())).height for m in tar]
    assert max(heights) == 500 * 32
    back = read_images(first)
    assert torch.equal(torch.from_numpy(back.images), images.images)
    assert np.array_equal(back.labels, images.labels.numpy()) and back.classes == images.classes
    files = [first.name, f"{first.name}.sha256", second.name, f"{second.name}.sha256"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files


def test_large_images_make_shorter_strips(tmp_path, make_set):
    images = make_set(140, side=128, classes=1)
    write_pack(images, tmp_path / "large.tar")
    assert torch.equal(torch.from_numpy(read_images(tmp_path / "large.tar").images), images.images)


def test_images_of_any_side_come_back(tmp_path, make_set):
    images = make_set(18, side=224, classes=1)
    images.images[:] = images.images[:, :, :1, :1]  # flat, so that it is quick
    write_pack(images, tmp_path / "wide.tar")
    assert torch.equal(torch.from_numpy(read_images(tmp_path / "wide.tar").images), images.images)


def test_an_unpacked_pack_is_the_same_set(tmp_path, make_set):
    images = make_set(40, classes=3)
    write_pack(images, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        tar.extractall(tmp_path / "a", filter="data")
    folder, pack = read_images(tmp_path / "a"), read_images(tmp_path / "a.tar")
    assert np.array_equal(folder.images, pack.images) and folder.classes == pack.classes
    assert np.array_equal(folder.labels, pack.labels)


def test_no_class_is_lost_in_a_pack(tmp_path, make_set):
    from dataclasses import replace

    images = replace(make_set(6, classes=3), classes=(".hidden", "a b", "Thumbs.db"))
    write_pack(images, tmp_path / "a.tar")
    back = read_images(tmp_path / "a.tar")
    assert len(back.images) == 6 and back.classes == ("_Thumbs.db", "_hidden", "a_b")
    with pytest.raises(FaroutError, match="two classes of tiny would have the folder a_b"):
        write_pack(replace(images, classes=("a b", "a_b", "c")), tmp_path / "b.tar")


def test_float_images_are_refused_and_nothing_is_written(tmp_path, make_set):
    from dataclasses import replace

    images = make_set(2)
    with pytest.raises(FaroutError, match="uint8"):
        write_pack(replace(images, images=images.images.float()), tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []


def test_members_are_read_in_byte_order_whatever_their_place(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name, grey in [("b/001.webp", 30), ("a/000.webp", 10), ("b/000.webp", 20)]:
            buffer = io.BytesIO()
            Image.new("RGB", (4, 8), (grey, grey, grey)).save(buffer, "WEBP", lossless=True)
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(buffer.getvalue())
            tar.addfile(entry, io.BytesIO(buffer.getvalue()))
    got = read_images(tmp_path / "a.tar.gz")
    assert got.images[:, 0, 0, 0].tolist() == [10, 10, 20, 20, 30, 30]
    assert got.labels.tolist() == [0, 0, 1, 1, 1, 1] and got.classes == ("a", "b")


def test_a_tall_photo_in_webp_is_no_strip(tmp_path):
    (tmp_path / "x").mkdir()
    Image.new("RGB", (200, 400)).save(tmp_path / "x" / "1.webp")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "x", "x")
    for path in (tmp_path / "x", tmp_path / "x.tar"):
        assert read_images(path, ResizeCrop(32, 32)).images.shape == (1, 3, 32, 32)


def test_handling_is_pil_bilinear_on_the_shorter_side_then_centre_crop():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8))
    small = picture.resize((48, 32), Image.Resampling.BILINEAR).crop((8, 0, 40, 32))
    assert np.array_equal(ResizeCrop(32, 32)(picture), np.asarray(small).transpose(2, 0, 1))
    assert ResizeCrop()(picture.convert("L")).shape == (3, 60, 90)
    assert ResizeCrop([20, 30])(picture).shape == (3, 20, 30)


def test_class_is_the_first_folder_below_a_common_one():
    assert class_folders(["a/1.png", "b/2.png"]) == ["a", "b"]
    assert class_folders(["dtd/images/a/1.png", "dtd/images/b/2.png"]) == ["a", "b"]
    assert class_folders(["LSUN_resize/LSUN_resize/1.png", "LSUN_resize/LSUN_resize/2.png"]) == ["LSUN_resize"] * 2
    assert class_folders(["1.png", "2.png"]) == ["all", "all"]


def test_one_line_errors(tmp_path, class_folders):
    with pytest.raises(FaroutError, match="3 image sizes; say `resize: 32`"):
        read_images(class_folders)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FaroutError, match="holds no images"):
        read_images(tmp_path / "empty")
    (class_folders / "cat" / "a.png").write_bytes(b"no image")
    with pytest.raises(FaroutError, match=r"cat/a\.png"):
        read_images(class_folders, ResizeCrop(32, 32))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(FaroutError, match="neither a folder nor a tar"):
        read_images(tmp_path / "a.txt")


@pytest.mark.data
def test_rewriting_a_real_pack_keeps_every_pixel(tmp_path, packs, data_paths):
    from farout.data import open_dataset

    faces = open_dataset("faces", "test", data_paths)
    write_pack(faces, tmp_path / "faces.tar")
    assert np.array_equal(read_images(tmp_path / "faces.tar").images, read_images(packs / "faces.tar").images)
