"""Readers of the official archives, by torchvision's loaders where torchvision has one.

Each takes the downloaded files, the split and the image handling of the catalogue. The CIFAR archives are
pickles: torchvision checks the md5 of each before unpickling, and nothing else here is ever unpickled.
"""

from __future__ import annotations

import gzip
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import datasets
from torchvision.datasets import mnist as idx

from farout.data.image_set import Decoded
from farout.data.pack import Handling, class_folders, is_image, read_images
from farout.errors import FaroutError


@contextmanager
def extracted(archive: Path, below: str = ".") -> Iterator[Path]:
    """A temporary folder with the content of a tar under `below`."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(Path(folder) / below, filter="data")
        yield Path(folder)


def cifar10(files: list[Path], split: str, handling: Handling) -> Decoded:
    """cifar-10-python.tar.gz, in the official order."""
    return _cifar(datasets.CIFAR10, files[0], split)


def cifar100(files: list[Path], split: str, handling: Handling) -> Decoded:
    """cifar-100-python.tar.gz with the fine labels, in the official order."""
    return _cifar(datasets.CIFAR100, files[0], split)


def _cifar(loader: type[datasets.CIFAR10], archive: Path, split: str) -> Decoded:
    with extracted(archive) as root:
        try:
            data = loader(str(root), train=split == "train")
        except RuntimeError as error:
            raise FaroutError(f"{archive.name} is not the official archive (batch checksums)") from error
    return Decoded(data.data.transpose(0, 3, 1, 2), np.asarray(data.targets), tuple(data.classes))


def svhn(files: list[Path], split: str, handling: Handling) -> Decoded:
    """PART_32x32.mat of each part of the split (`train_extra` has two); the digit 0 is class 0."""
    parts = []
    for file, part in zip(files, split.split("_"), strict=True):
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            (Path(folder) / f"{part}_32x32.mat").symlink_to(file.resolve())
            try:
                parts.append(datasets.SVHN(folder, split=part))
            except RuntimeError as error:
                raise FaroutError(f"{file.name} is not the official file of SVHN's {part} split") from error
    images = np.concatenate([part.data for part in parts]) if len(parts) > 1 else parts[0].data
    return Decoded(images, np.concatenate([part.labels for part in parts]), tuple("0123456789"))


def mnist(files: list[Path], split: str, handling: Handling) -> Decoded:
    """The images and the labels of one split, `*-images-idx3-ubyte.gz` and `*-labels-idx1-ubyte.gz`."""
    return _idx(files, handling, tuple("0123456789"))


def fashion_mnist(files: list[Path], split: str, handling: Handling) -> Decoded:
    """FashionMNIST, in the format of MNIST."""
    return _idx(files, handling, tuple(datasets.FashionMNIST.classes))


def _idx(files: list[Path], handling: Handling, classes: tuple[str, ...]) -> Decoded:
    """By torchvision's readers of the format (its loader wants all four files, also those of the other split)."""
    images, labels = files
    with tempfile.TemporaryDirectory(dir=images.parent) as folder:
        plain = Path(folder) / "idx"
        try:
            plain.write_bytes(gzip.decompress(images.read_bytes()))
            grey = idx.read_image_file(str(plain)).numpy()
            plain.write_bytes(gzip.decompress(labels.read_bytes()))
            numbers = idx.read_label_file(str(plain)).numpy()
        except (EOFError, ValueError, TypeError, gzip.BadGzipFile, zlib.error, AssertionError, IndexError) as error:
            names = f"{images.name} and {labels.name}"
            raise FaroutError(f"{names} are not a split in MNIST's format ({error}): get them again") from error
    if len(grey) != len(numbers):
        raise FaroutError(f"{images.name} holds {len(grey):,} images but {labels.name} {len(numbers):,} labels")
    return Decoded(np.stack([handling(Image.fromarray(image)) for image in grey]), numbers, classes)


def dtd(files: list[Path], split: str, handling: Handling) -> Decoded:
    """dtd-r1.0.1.tar.gz: all images, the three parts of its first partition together."""
    with extracted(files[0], "dtd") as root:
        parts = [datasets.DTD(str(root), split=part, transform=handling) for part in ("train", "val", "test")]
        found = [(image, part.classes[label]) for part in parts for image, label in part]
    images, names = zip(*found, strict=True)
    classes = sorted(set(names))
    return Decoded(np.stack(images), np.array([classes.index(name) for name in names]), tuple(classes))


def images(files: list[Path], split: str, handling: Handling) -> Decoded:
    """Any archive of images."""
    return read_images(files[0], handling)


def celeba(files: list[Path], split: str, handling: Handling) -> Decoded:
    """img_align_celeba.zip and list_eval_partition.txt.

    torchvision's loader wants four more annotation files and the zip unpacked, so the split is read here.
    """
    pictures, partition = sorted(files, key=lambda file: file.suffix == ".txt")
    number = {"train": "0", "valid": "1", "test": "2"}[split]
    lines = (line.split() for line in partition.read_text().splitlines() if line.strip())
    wanted = {name for name, part in lines if part == number}
    return read_images(pictures, handling, lambda name: Path(name).name in wanted)


def tiny_imagenet(files: list[Path], split: str, handling: Handling) -> Decoded:
    """tiny-imagenet-200.zip: `train` by class folders, `val` by its annotation file."""
    with zipfile.ZipFile(files[0]) as archive:
        names = [name for name in archive.namelist() if is_image(name) and f"/{split}/" in name]
        if split == "train":
            folders = class_folders([name.replace("/images/", "/") for name in names])
        else:
            (notes,) = [name for name in archive.namelist() if name.endswith("/val_annotations.txt")]
            of = dict(line.split("\t")[:2] for line in archive.read(notes).decode().splitlines())
            folders = [of[Path(name).name] for name in names]
        classes = sorted(set(folders))
        rows = [handling(Image.open(BytesIO(archive.read(name)))) for name in names]
    return Decoded(np.stack(rows), np.array([classes.index(f) for f in folders]), tuple(classes))


def npy(files: list[Path], split: str, handling: Handling) -> Decoded:
    """One array (N, H, W, 3) of uint8, memory-mapped; pickled arrays are refused."""
    try:
        array = np.load(files[0], mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise FaroutError(f"{files[0].name} is not a plain array ({error})") from error
    return Decoded(array.transpose(0, 3, 1, 2))
