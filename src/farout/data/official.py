"""Readers of the official archives, by torchvision's loaders where torchvision has one.

Each takes the downloaded files, the split and the image resize_crop of the catalogue. The CIFAR archives are
pickles: torchvision checks the md5 of each before unpickling, and nothing else here is ever unpickled.
"""

from __future__ import annotations

import gzip
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from farout.data.decode import FILE_LIMIT, decoded, naming
from farout.data.image_set import Decoded
from farout.data.listing import in_byte_order, list_images
from farout.data.pack import ResizeCrop, class_folders, read_images
from farout.errors import FaroutError, printable
from farout.files import write_bytes

if TYPE_CHECKING:  # torchvision takes seconds to load
    from torchvision.datasets import CIFAR10


@contextmanager
def unlike(files: Sequence[Path], what: str) -> Iterator[None]:
    """Whatever a loader raises on damaged or foreign files becomes one line that names them."""
    try:
        yield
    except FaroutError:
        raise
    except Exception as error:  # loaders raise what their file formats raise: any kind
        names = ", ".join(file.name for file in files)
        reason = printable((str(error).splitlines() or [type(error).__name__])[0])
        raise FaroutError(f"{names} is not {what}, or damaged ({reason}): fetch it again") from None


@contextmanager
def extracted(archive: Path) -> Iterator[Path]:
    """A temporary folder with the content of a tar."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def cifar10(files: list[Path], split: str, resize_crop: ResizeCrop) -> Decoded:
    """cifar-10-python.tar.gz, in the official order."""
    from torchvision.datasets import CIFAR10

    return _cifar(CIFAR10, files[0], split)


def cifar100(files: list[Path], split: str, resize_crop: ResizeCrop) -> Decoded:
    """cifar-100-python.tar.gz with the fine labels, in the official order."""
    from torchvision.datasets import CIFAR100

    return _cifar(CIFAR100, files[0], split)


def _cifar(loader: type[CIFAR10], archive: Path, split: str) -> Decoded:
    with unlike([archive], "the official archive"), extracted(archive) as root:
        data = loader(str(root), train=split == "train")
    return Decoded(data.data.transpose(0, 3, 1, 2), np.asarray(data.targets), tuple(data.classes))


def svhn(files: list[Path], split: str, resize_crop: ResizeCrop) -> Decoded:
    """PART_32x32.mat of each part of the split (`train_extra` has two); the digit 0 is class 0."""
    from torchvision.datasets import SVHN

    parts = []
    for file, part in zip(files, split.split("_"), strict=True):
        with (
            unlike([file], f"the official file of SVHN's {part} split"),
            tempfile.TemporaryDirectory(dir=file.parent) as folder,
        ):
            (Path(folder) / f"{part}_32x32.mat").symlink_to(file.resolve())
            parts.append(SVHN(folder, split=part))
    images = np.concatenate([part.data for part in parts]) if len(parts) > 1 else parts[0].data
    return Decoded(images, np.concatenate([part.labels for part in parts]), tuple("0123456789"))


def mnist(files: list[Path], split: str, resize_crop: ResizeCrop) -> Decoded:
    """The images and the labels of one split, `*-images-idx3-ubyte.gz` and `*-labels-idx1-ubyte.gz`."""
    return _idx(files, resize_crop, tuple("0123456789"))


def fashion_mnist(files: list[Path], split: str, resize_crop: ResizeCrop) -> Decoded:
    """FashionMNIST, in the format of MNIST."""
    from torchvision.datasets import FashionMNIST

    return _idx(files, resize_crop, tuple(FashionMNIST.classes))


def _idx(files: list[Path], resize_crop: ResizeCrop, classes: tuple[str, ...]) -> Decoded:
    """By torchvision's readers of the format (its loader wants all four files, also those of the other split)."""
    from torchvision.datasets import mnist as idx

    images, labels = files
    with unlike(files, "a split in MNIST's format"), tempfile.TemporaryDirectory(dir=images.parent) as folder:
        grey = idx.read_image_file(_unpacked(images, Path(folder))).numpy()
        numbers = idx.read_label_file(_unpacked(labels, Path(folder))).numpy()
    if len(grey) != len(numbers):
        raise FaroutError(f"{images.name} holds {len(grey):,} images but {labels.name} {len(numbers):,} labels")
    return Decoded(np.stack([resize_crop(Image.fromarray(image)) for image in grey]), numbers, classes)


def _unpacked(packed: Path, folder: Path) -> str:
    with gzip.open(packed) as file:
        content = file.read(FILE_LIMIT)
    write_bytes(folder / "idx", content)
    return str(folder / "idx")


def dtd(files: list[Path], split: str, resize_crop: ResizeCrop) -> Decoded:
    """dtd-r1.0.1.tar.gz: all images, the three parts of its first partition together, in the order of their lists."""
    with unlike(files, "the official archive"):
        lists = _texts(files[0], lambda name: name in {f"dtd/labels/{part}1.txt" for part in ("train", "val", "test")})
        names = [line for part in ("train", "val", "test") for line in lists[f"dtd/labels/{part}1.txt"].split()]
        return _labelled(
            files[0], [f"dtd/images/{name}" for name in names], [n.split("/")[0] for n in names], resize_crop
        )


def _texts(archive: Path, keep: Callable[[str], bool]) -> dict[str, str]:
    """Name -> text of some members, which are no images."""
    listing = list_images(archive, keep)
    return {name: content.decode() for name, content in listing.contents()}


def _labelled(archive: Path, names: Sequence[str], folders: Sequence[str], resize_crop: ResizeCrop) -> Decoded:
    """The images `names` of an archive in this order, each with the class of its name."""
    found, wanted = {}, set(names)
    listing = list_images(archive)
    for name, content in listing.contents(wanted.__contains__):
        with naming(listing.where(name)):
            found[name] = resize_crop.fit(decoded(content, name))
    absent = [name for name in names if name not in found]
    if absent or not names:
        raise FaroutError(f"{archive.name} lacks {len(absent):,} of its {len(names):,} images: fetch it again")
    classes = in_byte_order(set(folders))
    labels = np.array([classes.index(folder) for folder in folders])
    return Decoded(np.stack([found[name] for name in names]), labels, tuple(classes))


def images(files: list[Path], split: str, resize_crop: ResizeCrop) -> Decoded:
    """Any archive of images."""
    return read_images(files[0], resize_crop)


def celeba(files: list[Path], split: str, resize_crop: ResizeCrop) -> Decoded:
    """img_align_celeba.zip and list_eval_partition.txt.

    torchvision's loader wants four more annotation files and the zip unpacked, so the split is read here.
    """
    pictures, partition = sorted(files, key=lambda file: file.suffix == ".txt")
    number = {"train": "0", "valid": "1", "test": "2"}[split]
    with unlike([partition], "the official list"):
        lines = (line.split() for line in partition.read_text().splitlines() if line.strip())
        wanted = {name for name, part in lines if part == number}
    return read_images(pictures, resize_crop, lambda name: Path(name).name in wanted)


def tiny_imagenet(files: list[Path], split: str, resize_crop: ResizeCrop, part: str | None = None) -> Decoded:
    """tiny-imagenet-200.zip: `train` by class folders, `val` by its annotation file.

    `part` names the one to read where the catalogue calls it otherwise: the official `test` has no labels.
    """
    split = part or split
    with unlike(files, "the official archive"):
        listing = list_images(files[0])
        names = [name for name in listing.names if f"/{split}/" in f"/{name}"]
        names.sort(key=lambda name: listing.members[name].place)  # the archive's own order
        if split == "train":
            return _labelled(files[0], names, class_folders([n.replace("/images/", "/") for n in names]), resize_crop)
        (notes,) = _texts(files[0], lambda name: name.endswith("/val_annotations.txt")).values()
        of = dict(line.split("\t")[:2] for line in notes.splitlines())
        return _labelled(files[0], names, [of[Path(name).name] for name in names], resize_crop)


def npy(files: list[Path], split: str, resize_crop: ResizeCrop) -> Decoded:
    """One array (N, H, W, 3) of uint8, memory-mapped; pickled arrays are refused."""
    with unlike(files, "a plain array"):
        array = np.load(files[0], mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive of arrays"
        raise FaroutError(f"{files[0].name} is {found}: give one array (N, H, W, 3) of uint8")
    if 0 in array.shape:
        raise FaroutError(f"{files[0].name} holds no images")
    return Decoded(array.transpose(0, 3, 1, 2))
