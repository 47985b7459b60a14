"""A set of files as one tar in parts small enough to carry, and a manifest that vouches for every byte.

    pack:    files -> tar -> NAME.tar.000, NAME.tar.001, ... (at most PART_BYTES each), NAME.json written last
    unpack:  every part's SHA-256 is checked before the first file is written

The folder is flat, and at every moment it holds one whole state: new parts never take the names of the parts that the
present manifest vouches for (numbers from 000 and from 500 take turns); these go when the new manifest is in place.
"""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from farout.errors import FaroutError
from farout.files import load_json, new_file, remove_leftovers, save_json, write_atomically, writing

PART_BYTES = 15 * 2**20
SECOND_BANK = 500

Manifest = dict[str, Any]


def manifest_path(folder: Path, name: str) -> Path:
    """The file that makes the parts a state."""
    return folder / f"{name}.json"


def read_manifest(folder: Path, name: str) -> Manifest | None:
    """The manifest of a folder, None where it has none; raises FaroutError where it is not one of ours."""
    path = manifest_path(folder, name)
    if not path.exists():
        return None
    manifest = load_json(path)
    part = re.compile(rf"{re.escape(name)}\.tar\.\d{{3}}")
    try:
        sound = all(part.fullmatch(entry["name"]) and len(entry["sha256"]) == 64 for entry in manifest["parts"])
        sound = sound and 0 < manifest["bytes"] == sum(entry["bytes"] for entry in manifest["parts"])
    except (KeyError, TypeError, IndexError):
        sound = False
    if not sound:
        raise FaroutError(f"{path} is no manifest of parts: give another folder, or remove it to start afresh")
    return dict(manifest)


def pack(folder: Path, name: str, files: Mapping[str, Path], facts: Mapping[str, Any]) -> Manifest:
    """Write `files` (name in the tar -> file) as parts and a manifest with `facts`; returns the manifest.

    The same files give the same parts, byte for byte. Uncompressed: trained weights do not shrink.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    old = read_manifest(folder, name)
    first = SECOND_BANK if old is not None and _number(old["parts"][0]["name"]) < SECOND_BANK else 0
    remove_leftovers([folder])
    with writing(folder / name), tempfile.TemporaryFile() as archive:
        _write_tar(archive, files)
        archive.seek(0)
        parts = _cut(archive, folder, name, first)
    manifest = {"bytes": sum(part["bytes"] for part in parts), "parts": parts, **facts}
    save_json(manifest_path(folder, name), manifest)
    current = {part["name"] for part in parts}
    for stale in folder.glob(f"{name}.tar.[0-9][0-9][0-9]"):
        if stale.name not in current:
            with writing(stale):
                stale.unlink()
    return manifest


def _number(part: str) -> int:
    return int(part.rpartition(".")[2])


def _write_tar(archive: IO[bytes], files: Mapping[str, Path]) -> None:
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, path in files.items():
            with path.open("rb") as file:
                entry = tarfile.TarInfo(name)  # no dates, no owners
                entry.size, entry.mode = os.fstat(file.fileno()).st_size, 0o644
                tar.addfile(entry, file)


def _cut(archive: IO[bytes], folder: Path, name: str, first: int) -> list[dict[str, Any]]:
    """The archive as part files, and what the manifest says of each."""
    parts: list[dict[str, Any]] = []
    while content := archive.read(PART_BYTES):
        if len(parts) == SECOND_BANK:
            raise FaroutError(f"the state needs more than {SECOND_BANK} parts of {PART_BYTES} bytes: pack fewer runs")
        path = folder / f"{name}.tar.{first + len(parts):03d}"
        with new_file(path) as file:
            file.write(content)
        parts.append({"name": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    return parts


def unpack(folder: Path, manifest: Manifest, place: Callable[[str], Path | None]) -> None:
    """Check every part, then write each file where `place` says, atomically, in packed order (None: not wanted).

    Raises:
        FaroutError: a part is missing or damaged; nothing has been written.
    """
    with tempfile.TemporaryFile() as archive:
        for part in manifest["parts"]:
            archive.write(_checked(folder, part))
        archive.seek(0)
        try:
            with tarfile.open(fileobj=archive, mode="r:") as tar:
                for entry in tar:
                    path, content = place(entry.name), tar.extractfile(entry) if entry.isreg() else None
                    if path is not None and content is not None:
                        write_atomically(path, partial(shutil.copyfileobj, content))
        except tarfile.TarError as error:
            raise FaroutError(f"{folder} holds no archive of ours ({error}): copy the whole folder again") from None


def _checked(folder: Path, part: Mapping[str, Any]) -> bytes:
    path = folder / part["name"]
    if not path.is_file():
        raise FaroutError(f"{path} is missing: copy the whole folder again (nothing was unpacked)")
    content = path.read_bytes()
    if len(content) != part["bytes"] or hashlib.sha256(content).hexdigest() != part["sha256"]:
        raise FaroutError(f"{path} is damaged: copy the whole folder again (nothing was unpacked)")
    return content
