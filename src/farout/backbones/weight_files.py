"""Files of weights that somebody else saved, read with distrust: sizes first, then plain data alone, never a pickle."""

import argparse
import re
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from farout.backbones.foreign import listed
from farout.backbones.weight_sets import WeightSet, narrowed, weight_sets
from farout.errors import FaroutError

LARGEST_GIB = 8  # of a file: networks here have less than one, with optimiser and averages


def read_sets(path: Path, entry: str | None = None) -> list[WeightSet]:
    """The sets of weights in a file, or those that `entry` names; the likeliest first.

    Raises FaroutError for a file that is absent, too large, holds anything but plain data, or holds no weights.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise FaroutError(f"{path} {what}: give a file of weights")
    sets = weight_sets(_content(path))
    if not sets:
        raise FaroutError(f"{path} holds no state dict: save model.state_dict() with torch.save")
    found = sets if entry is None else narrowed(sets, entry)
    if not found:
        held = listed([part.label or "(the top)" for part in sets])
        raise FaroutError(f"{path} has no weights under --entry {entry}: it holds {held}")
    return found


def _content(path: Path) -> Any:
    """What the file holds. Argument lists of argparse, which some code bases add, are let through: they are data."""
    try:
        _check_file(path)
        if path.suffix == ".safetensors" or _begins(path)[8:9] == b"{":  # a length of 8 bytes, then JSON
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a TorchScript archive, which is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FaroutError:
        raise
    except SafetensorError as error:
        raise FaroutError(f"{path} is no safetensors file ({error}): download or save it again") from None
    except OSError as error:
        raise FaroutError(f"{path} cannot be read ({error.strerror or error}): give a file of weights") from None
    except Exception as error:
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        if forbidden:
            raise FaroutError(
                f"{path} holds Python objects besides weights ({forbidden.group(1)}), which are never unpickled: "
                "load it where you trust it, and save model.state_dict() alone"
            ) from None
        if "TorchScript" in str(error):
            raise FaroutError(f"{path} is a TorchScript program, which is not run: save model.state_dict()") from None
        raise FaroutError(f"{path} is damaged or no file of torch.save: give a file of weights") from None


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _check_file(path: Path) -> None:
    """Refuse what would fill the memory, also once it is unpacked, and what is damaged: torch.save writes a zip."""
    size, parts = path.stat().st_size, []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            parts = file.infolist()
    size = max(size, sum(part.file_size for part in parts))
    if size > LARGEST_GIB * 2**30:
        raise FaroutError(
            f"{path} has {size / 2**30:.1f} GiB, more than any network here ({LARGEST_GIB}): save its weights alone"
        )
    for part in parts:
        if part.CRC:  # torch.save can leave the checksums out; torch.load never looks at them
            _check_part(path, part)


def _check_part(path: Path, part: zipfile.ZipInfo) -> None:
    try:
        with zipfile.ZipFile(path) as file, file.open(part) as content:
            while content.read(2**20):
                pass
    except (zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise FaroutError(f"{path} is damaged ({reason}): download or save it again") from None
