"""Damaged and hostile inputs end in one line that names the set and the file; nothing large is read into memory."""

import bz2
import gzip
import io
import lzma
import os
import resource
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from farout.data import open_dataset
from farout.data.decode import FILE_LIMIT
from farout.data.official import celeba, cifar10, dtd, mnist, npy, svhn, tiny_imagenet
from farout.data.pack import ResizeCrop, read_images
from farout.data.pictures import image_files
from farout.errors import FaroutError
from script_loader import load_script

CRC_AT = 60  # inside the content of the first member of `zip_bytes`


def png(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def tar_bytes(count: int = 6, name: str = "cat/{}.png") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i in range(count):
            content = png(i)
            member = tarfile.TarInfo(name.format(i))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(name: str = "cat/1.png", compression: int = zipfile.ZIP_STORED, content: bytes | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(name, png(1) if content is None else content)
    return buffer.getvalue()


def flipped(content: bytes, at: int, mask: int = 0xFF) -> bytes:
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


def in_both_heads(content: bytes, local: int, central: int, value: int) -> bytes:
    """A zip whose two headers hold `value` (16 bits) at these places."""
    second = content.index(b"PK\1\2")
    changed = bytearray(content)
    changed[local : local + 2] = struct.pack("<H", value)
    changed[second + central : second + central + 2] = struct.pack("<H", value)
    return bytes(changed)


TAR, ZIP = tar_bytes(), zip_bytes()


def with_negative_size() -> bytes:
    """A tar whose second header says -512 bytes: a reader that believes it goes round and round."""
    first = 512 + (len(png(0)) + 511) // 512 * 512
    header = bytearray(tar_bytes()[first : first + 512])
    header[124:136] = b"\xff" * 10 + b"\xfe\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return tar_bytes()[:first] + bytes(header) + tar_bytes()[first + 512 :]


DAMAGED: dict[str, tuple[bytes, str]] = {
    "half.tar": (TAR[: len(TAR) // 2], "damaged"),
    "in_a_header.tar": (TAR[: len(TAR) // 4 // 512 * 512 + 100], "damaged"),
    "between_members.tar": (TAR[: 512 + (len(png(0)) + 511) // 512 * 512], "no end mark"),
    "one_header.tar": (flipped(TAR, 512 + (len(png(0)) + 511) // 512 * 512 + 3), "damaged"),
    "negative.tar": (with_negative_size(), "a negative size"),
    "half.tar.gz": (gzip.compress(TAR)[:-2000], "damaged"),
    "a_few_bytes.tar.gz": (gzip.compress(TAR)[:30], "damaged"),
    "checksum.tar.gz": (flipped(gzip.compress(TAR), -8 + len(gzip.compress(TAR))), "CRC"),
    "half.tar.bz2": (bz2.compress(TAR)[:-2000], "damaged"),
    "half.tar.xz": (lzma.compress(TAR)[:-2000], "damaged"),
    "no.tar.gz": (gzip.compress(b"no tar at all"), "damaged"),
    "half.zip": (ZIP[: len(ZIP) // 2], "damaged"),
    "crc.zip": (flipped(ZIP, CRC_AT), "Bad CRC-32"),
    "encrypted.zip": (in_both_heads(ZIP, 6, 8, 1), "encrypted"),
    "unknown_compression.zip": (in_both_heads(ZIP, 8, 10, 77), "damaged"),
    "deflated.zip": (flipped(zip_bytes(compression=zipfile.ZIP_DEFLATED), 50), "damaged"),
    "empty.tar": (b"", "neither a folder nor a tar nor a zip"),
    "text.tar": (b"no tar\n" * 200, "neither a folder nor a tar nor a zip"),
    "encrypted_webp.zip": (in_both_heads(zip_bytes("a.webp"), 6, 8, 1), "encrypted"),
    "no_images.zip": (zip_bytes("a.txt"), r"holds no images.*1 \.txt"),
    "empty.zip": (b"PK\5\6" + bytes(18), "holds no images"),
    "text.zip": (zip_bytes(content=b"no image"), r"cat/1\.png"),
    "none.zip": (zip_bytes(content=b""), r"cat/1\.png"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_archives_in_one_line(tmp_path: Path, name: str, own, add_dataset) -> None:  # type: ignore[no-untyped-def]
    content, said = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FaroutError, match=said) as caught:
        read_images(tmp_path / name, ResizeCrop(32, 32))
    assert name in str(caught.value) and len(str(caught.value).splitlines()) == 1
    add_dataset("mine", f"title: Mine\nsource: {name}\n")
    with pytest.raises(FaroutError, match=f"^mine: .*{said}"):
        open_dataset("mine", "test", own)
    assert [p for p in (own.store / "mine").iterdir() if p.suffix != ".lock"] == []


def test_the_command_says_one_line(tmp_path: Path, own, add_dataset, capsys) -> None:  # type: ignore[no-untyped-def]
    add_dataset("mine", "title: Mine\nsplits: {test: {pack: mine.tar, resize: 32, crop: 32}}\n")
    places = ["--conf", str(own.conf), "--data", str(own.store), "--packs", str(own.packs)]
    script = load_script("prepare_data")
    for name in ("half.tar", "half.tar.gz", "crc.zip", "encrypted.zip", "text.zip"):
        (tmp_path / name).write_bytes(DAMAGED[name][0])
        assert script.main(["mine", "--from", str(tmp_path / name), *places]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def _bomb_tar(path: Path) -> None:
    """A compressed tar with an image of 4 GiB of zeros in 4 MB, cut after the first MiB of it: never unpacked."""
    member = tarfile.TarInfo("cat/1.png")
    member.size = 2**32
    path.write_bytes(gzip.compress(member.tobuf() + bytes(2**20)))


def _large_tar(path: Path) -> None:
    """A whole tar with an image of more than the limit: the file has a hole, and takes no room on the disk."""
    member = tarfile.TarInfo("cat/1.png")
    member.size = FILE_LIMIT + 512
    with path.open("wb") as file:
        file.write(member.tobuf())
        file.truncate(512 + member.size + 1024)


def _large_zip(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("cat/1.png", "w", force_zip64=True) as file,
    ):
        for _ in range((FILE_LIMIT >> 24) + 1):
            file.write(bytes(1 << 24))


def _lying_zip(path: Path) -> None:
    """400 MiB that say they are 1,000 bytes."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("cat/1.png", "w") as file,
    ):
        for _ in range(25):
            file.write(bytes(1 << 24))
    content = bytearray(path.read_bytes())
    for at in (22, content.rindex(b"PK\1\2") + 24):
        content[at : at + 4] = struct.pack("<I", 1000)
    path.write_bytes(content)


def _large_file(path: Path) -> None:
    (path / "cat").mkdir(parents=True)
    with (path / "cat/1.png").open("wb") as file:
        file.truncate(2**40)


def _long_name(path: Path) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**33
    path.write_bytes(gzip.compress(member.tobuf() + bytes(2**20)))


@pytest.mark.parametrize("make", [_bomb_tar, _large_tar, _large_zip, _lying_zip, _large_file, _long_name])
def test_what_would_fill_the_memory_is_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "set")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FaroutError) as caught:
        read_images(tmp_path / "set", ResizeCrop(32, 32))
    assert "set" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1.2 * (FILE_LIMIT >> 10), f"{grown} KiB"


def test_names_of_any_bytes_and_depth(tmp_path: Path) -> None:
    deep = "/".join("d" * 3000)
    (tmp_path / "a.tar").write_bytes(tar_bytes(1, name=f"{deep}/{{}}.png"))
    with pytest.raises(FaroutError, match="names that lead out of it"):
        read_images(tmp_path / "a.tar")
    (tmp_path / "b.tar").write_bytes(tar_bytes(1, name=f"{deep[:3000]}/{{}}.png"))
    assert len(read_images(tmp_path / "b.tar").images) == 1


def test_a_folder_deeper_than_paths_can_be_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(25):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    for read in (lambda: read_images(tmp_path), lambda: image_files([tmp_path])):
        with pytest.raises(FaroutError, match="too long") as caught:
            read()
        assert len(str(caught.value)) < 600
    with pytest.raises(FaroutError, match="too long"):
        image_files([tmp_path / ("x" * 300)])


def test_stores_keep_names_that_are_no_text(tmp_path: Path, own, add_dataset) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / os.fsdecode(b"phot\xf6s")
    (folder / os.fsdecode(b"caf\xe9")).mkdir(parents=True)
    (folder / os.fsdecode(b"caf\xe9/\xff.png")).write_bytes(png(0))
    (tmp_path / "photos.tar").write_bytes(b"")
    (tmp_path / "link").symlink_to(folder)
    add_dataset("mine", "title: Mine\nsource: link\nchoose: {count: 1, seed: 0}\n")
    found = open_dataset("mine", "test", own)
    assert found.classes == ("caf\\xe9",) and found.folder is not None
    assert (found.folder / "names.txt").read_bytes() == b"caf\xe9/\xff.png\n"
    (folder / os.fsdecode(b"caf\xe9/\xff.png")).write_bytes(b"no image")
    with pytest.raises(FaroutError, match=r"caf\\xe9/\\xff\.png cannot be read") as caught:
        read_images(folder)
    str(caught.value).encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_one_may_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(FaroutError, match=r"a\.png cannot be read \(Permission denied\)"):
        read_images(tmp_path)
    (tmp_path / "b").mkdir(mode=0)
    with pytest.raises(FaroutError, match=r"b cannot be read \(Permission denied\)"):
        read_images(tmp_path)


def _official(folder: Path, content: dict[str, bytes]) -> list[Path]:
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in content]


def _array(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def _archive_of_arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("reader", "split", "content"),
    [
        (cifar10, "train", {"cifar.tar.gz": DAMAGED["half.tar.gz"][0]}),
        (cifar10, "train", {"cifar.tar.gz": b""}),
        (cifar10, "test", {"cifar.tar.gz": gzip.compress(TAR)}),
        (svhn, "test", {"svhn.mat": b"no mat"}),
        (dtd, "test", {"dtd.tar.gz": DAMAGED["half.tar.gz"][0]}),
        (dtd, "test", {"dtd.tar.gz": gzip.compress(TAR)}),
        (tiny_imagenet, "train", {"tiny.zip": DAMAGED["half.zip"][0]}),
        (tiny_imagenet, "train", {"tiny.zip": zip_bytes("tiny/train/n1/images/1.JPEG", content=b"no image")}),
        (tiny_imagenet, "train", {"tiny.zip": ZIP}),
        (tiny_imagenet, "val", {"tiny.zip": zip_bytes("tiny/val/images/1.JPEG")}),
        (celeba, "test", {"faces.zip": DAMAGED["crc.zip"][0], "parts.txt": b"1.png 2\n"}),
        (celeba, "test", {"faces.zip": ZIP, "parts.txt": b"1.png\n"}),
        (celeba, "test", {"faces.zip": ZIP, "parts.txt": b"\xff\xfe"}),
        (mnist, "test", {"images.gz": gzip.compress(b"no idx"), "labels.gz": gzip.compress(b"")}),
        (mnist, "test", {"images.gz": b"", "labels.gz": b""}),
        (npy, "train", {"a.npy": b""}),
        (npy, "train", {"a.npy": b"no array"}),
        (npy, "train", {"a.npy": _array(np.zeros((2, 4, 4, 3), np.uint8))[:-5]}),
        (npy, "train", {"a.npy": _array(np.array([{}], object), allow_pickle=True)}),
        (npy, "train", {"a.npy": _array(np.zeros((2, 4, 4, 3)))}),
        (npy, "train", {"a.npy": _array(np.zeros((2, 3, 4, 4), np.uint8))}),
        (npy, "train", {"a.npy": _array(np.zeros((0, 4, 4, 3), np.uint8))}),
        (npy, "train", {"a.npy": _archive_of_arrays()}),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else value if isinstance(value, str) else "",
)
def test_official_files_in_one_line(tmp_path: Path, reader, split: str, content: dict[str, bytes]) -> None:  # type: ignore[no-untyped-def]
    files = _official(tmp_path, content)
    with pytest.raises(FaroutError) as caught:
        reader(files, split, ResizeCrop(32, 32))
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and any(file.name in message for file in files), message
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(content)
