"""A folder and an archive of it are the same set; what is no part of it stays out; what is passed over is said."""

import io
import json
import logging
import os
import shutil
import stat
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from farout.data import open_dataset
from farout.data.class_folders import write_index
from farout.data.image_set import Decoded
from farout.data.listing import list_images
from farout.data.pack import ResizeCrop, is_pack, read_images
from farout.data.pictures import image_files
from farout.errors import FaroutError

Files = dict[str, bytes]


def png(i: int, side: int = 4) -> bytes:
    return encoded(np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8), "PNG")


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def folder_of(root: Path, files: Files) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def tar_of(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            add(tar, name, content)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, target
    tar.addfile(member, io.BytesIO(content))


def zip_of(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def same(first: Decoded, second: Decoded) -> bool:
    return (
        np.array_equal(first.images, second.images)
        and np.array_equal(first.labels, second.labels)
        and first.classes == second.classes
        and first.facts == second.facts
    )


@pytest.fixture
def tricky(tmp_path: Path) -> Path:
    """A folder with all that may happen to one; its images are twelve."""
    root = folder_of(
        tmp_path / "photos",
        {
            "cat/000.png": png(0),
            "cat/deep/er/1.png": png(1),
            "cat-b/0.png": png(2),
            "hündchen/ä b.png": png(3),
            "owl/\N{SNOWMAN}.PNG": png(4),
            "owl/plain": png(5),
            "owl/notes.txt": b"x",
            "owl/read me": b"x",
            "owl/Thumbs.db": b"x",
            "owl/._plain.png": b"macOS",
            "owl/.hidden/9.png": png(6),
            ".ipynb_checkpoints/1.png": png(6),
            ".Trash-1000/files/1.png": png(6),
            "__MACOSX/owl/._1.png": b"macOS",
            "cat/@eaDir/000.png/thumb.jpg": b"x",
            "real/r.png": png(7),
        },
    )
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    (root / os.fsdecode(b"caf\xe9/x\xff.png")).write_bytes(png(8))
    os.link(root / "cat/000.png", root / "cat/same.png")
    (root / "owl/linked.png").symlink_to("../real/r.png")
    (root / "zebra").symlink_to("owl/../real")
    (root / "cat/up").symlink_to("..")
    (root / "cat/none.png").symlink_to("nowhere.png")
    return root


def _external(*command: str, at: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    subprocess.run(command, cwd=at, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("photos.tar", "tar cf photos.tar -C photos ."),
        ("photos.tar.gz", "tar czf photos.tar.gz photos"),
        ("x.tar.xz", "tar cJf x.tar.xz -C photos ."),
        ("photos.zip", "zip -qry photos.zip photos"),
    ],
)
def test_a_folder_and_its_archive_are_the_same_set(tmp_path: Path, tricky: Path, name: str, command: str) -> None:
    os.mkfifo(tricky / "cat/pipe.png")
    expected = read_images(tricky)
    if "zip" in command:
        (tricky / "cat/pipe.png").unlink()  # zip leaves pipes out
        expected = read_images(tricky)
    _external(*command.split(), at=tmp_path)
    found = read_images(tmp_path / name)
    assert same(found, expected)
    assert expected.classes == ("caf\\xe9", "cat", "cat-b", "hündchen", "owl", "real", "zebra")
    assert np.bincount(expected.labels).tolist() == [1, 3, 1, 1, 3, 1, 1]
    passed = {".txt": 1, "without suffix": 1, "links in a circle": 1, "links that lead nowhere": 1}
    assert expected.facts == {"passed_over": passed | ({} if "zip" in command else {"devices or pipes": 1})}


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize(
    ("files", "classes"),
    [
        ({"photos/0.png": png(0), "photos/1.png": png(1)}, ("all",)),
        ({"photos/0.png": png(0), "photos/a/1.png": png(1)}, ("a", "all")),
        ({"photos/x/a/0.png": png(0), "photos/x/b/1.png": png(1)}, ("a", "b")),
        ({"photos/a/0.png": png(0), "photos/a/x/1.png": png(1)}, ("a",)),
    ],
)
def test_an_archive_of_one_folder_is_that_folder(
    tmp_path: Path, make: Callable[[Path, Files], Path], files: Files, classes: tuple[str, ...]
) -> None:
    folder_of(tmp_path, files)
    expected = read_images(tmp_path / "photos")
    assert expected.classes == classes
    assert same(read_images(make(tmp_path / "photos.x", files).rename(tmp_path / "photos.TAR.gz")), expected)


def test_a_later_member_of_the_same_name_wins_as_in_extraction(tmp_path: Path) -> None:
    tar_of(tmp_path / "mine.tar", {"a/0.png": png(0), "./a/1.png": png(1), "a/0.txt": b""})
    with tarfile.open(tmp_path / "mine.tar", "a") as tar:
        add(tar, "./a/0.png", png(2))
    extracted = folder_of(tmp_path / "x", {"a/0.png": png(2), "a/1.png": png(1), "a/0.txt": b""})
    assert same(read_images(tmp_path / "mine.tar"), read_images(extracted))


def test_links_in_archives_never_lead_out(tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(png(9))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "a/0.png", png(0))
        add(tar, "a/hard.png", kind=tarfile.LNKTYPE, target="./a/0.png")
        add(tar, "a/later.png", kind=tarfile.LNKTYPE, target="a/9.png")
        add(tar, "a/9.png", png(1))
        add(tar, "a/out.png", kind=tarfile.SYMTYPE, target="../../out.png")
        add(tar, "a/absolute.png", kind=tarfile.SYMTYPE, target=str(tmp_path / "out.png"))
        add(tar, "a/itself.png", kind=tarfile.SYMTYPE, target="itself.png")
        add(tar, "../climbs.png", png(2))
        add(tar, "/absolute/3.png", png(3))
        add(tar, "a/pipe.png", kind=tarfile.FIFOTYPE)
        add(tar, "a/device.png", kind=tarfile.CHRTYPE)
    found = read_images(tmp_path / "a.tar")
    assert len(found.images) == 4 and found.classes == ("a", "absolute")
    assert found.facts["passed_over"] == {
        "devices or pipes": 2,
        "links that lead nowhere": 4,
        "names that lead out of it": 1,
    }


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    files = {f"{i}/x.png": png(i) for i in range(12)}
    root = folder_of(tmp_path / "a", files)
    for i in range(12):
        for j in range(12):
            (root / f"{i}/to{j}").symlink_to(f"../{j}")
    tar = tmp_path / "a.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(root, "a")
    for source in (root, tar):
        with pytest.raises(FaroutError, match="links lead to one folder"):
            read_images(source)


def test_zips_of_windows_and_links_in_zips(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat\\0.png", png(0))
        archive.writestr("dog\\", b"")
        archive.writestr("dog\\1.png", png(1))
        link = zipfile.ZipInfo("dog\\2.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "../cat/0.png")
    found = read_images(tmp_path / "a.zip")
    assert found.classes == ("cat", "dog") and found.labels.tolist() == [0, 1, 1]
    assert np.array_equal(found.images[0], found.images[2])


def test_webp_photographs_are_no_strips(tmp_path: Path) -> None:
    tall = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    for lossless in (False, True):
        files = {f"cat/{i:03d}.webp": encoded(tall, "WEBP", lossless=lossless) for i in range(3)}
        for make, suffix in ((tar_of, "tar"), (zip_of, "zip")):
            archive = make(tmp_path / f"{lossless}.{suffix}", files)
            assert not is_pack(archive)
            assert len(read_images(archive, ResizeCrop(32, 32)).images) == 3
    strip = encoded(np.concatenate([tall] * 10), "WEBP", lossless=True)
    assert len(read_images(tar_of(tmp_path / "pack.tar", {"a/000.webp": strip, "a/001.webp": strip})).images) == 40
    mixed = tar_of(tmp_path / "mixed.tar", {"a/000.webp": strip, "a/b.png": png(0)})
    assert not is_pack(mixed) and len(read_images(mixed, ResizeCrop(8, 8)).images) == 2


def test_what_is_passed_over_is_said_in_one_line_and_recorded(own, add_dataset, tmp_path, caplog) -> None:  # type: ignore[no-untyped-def]
    folder_of(tmp_path / "photos", {"a/0.png": png(0), "a/1.svg": b"", "a/2.svg": b"", "a/3": b"x", "b/4.gif": png(1)})
    add_dataset("mine", "title: Mine\nsource: photos\n")
    with caplog.at_level(logging.WARNING):
        found = open_dataset("mine", "test", own)
    assert len(found) == 2
    (line,) = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert line.endswith("photos: passed over 3 that are no images (2 .svg, 1 without suffix)")
    assert found.info["passed_over"] == {".svg": 2, "without suffix": 1}
    caplog.clear()
    write_index(tmp_path / "index", tmp_path / "photos", ["a", "b"])
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [line]
    assert json.loads((tmp_path / "index/meta.json").read_text())["files"] == {"a": ["0.png"], "b": ["4.gif"]}


def test_detectors_find_the_same_files(tricky: Path) -> None:
    found = [path.relative_to(tricky).as_posix() for path in image_files([tricky])]
    assert found == list_images(tricky).names and len(found) == 11


def test_a_hidden_folder_above_does_not_count(tmp_path: Path) -> None:
    folder_of(tmp_path / ".cache/set", {"0.png": png(0)})
    assert len(read_images(tmp_path / ".cache/set").images) == 1
    assert len(image_files([tmp_path / ".cache/set"])) == 1


def test_a_linked_class_folder_is_followed(tmp_path: Path) -> None:
    folder_of(tmp_path, {"set/dog/0.png": png(0), "else/where/1.png": png(1)})
    (tmp_path / "set/cat").symlink_to(tmp_path / "else/where")
    assert read_images(tmp_path / "set").classes == ("cat", "dog")
    write_index(tmp_path / "index", tmp_path / "set", ["cat", "dog"])
    assert json.loads((tmp_path / "index/meta.json").read_text())["files"]["cat"] == ["1.png"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder_of(tmp_path / "set", {"0.png": png(0)})
    os.mkfifo(tmp_path / "set/1.png")
    reading = threading.Thread(target=lambda: list_images(tmp_path / "set"), daemon=True)
    reading.start()
    reading.join(20)
    assert not reading.is_alive()
    assert read_images(tmp_path / "set").facts["passed_over"] == {"devices or pipes": 1}
    with pytest.raises(FaroutError, match="no regular file"):
        image_files([tmp_path / "set/1.png"])
