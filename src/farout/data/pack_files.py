"""Pack files as they lie on disk: whether they are what the catalogue knows, or what their own checksum says."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from farout.errors import FaroutError
from farout.files import write_text


def checksum_file(pack: Path) -> Path:
    """Where the checksum of a pack of your own lies: beside it, in the format of sha256sum."""
    return pack.with_name(f"{pack.name}.sha256")


def write_checksum(pack: Path) -> None:
    """Write PACK.sha256, so that the pack is known from then on although the catalogue knows another."""
    write_text(checksum_file(pack), f"{_sha256(pack)}  {pack.name}\n")


def checked(pack: Path, expected: str | None) -> dict[str, Any]:
    """What a store remembers of the pack that it is built from: name, bytes, time and sha256.

    Raises FaroutError where the content is not that of PACK.sha256, or without such a file not `expected`.
    """
    stat, seen, own = pack.stat(), _sha256(pack), checksum_file(pack)
    origin = {"name": pack.name, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": seen}
    if own.is_file():
        found = re.match(r"[0-9a-fA-F]{64}\b", own.read_text(errors="replace").strip())
        if found is None or found[0].lower() != seen:
            wanted = found[0].lower() if found else "a checksum that cannot be read"
            raise FaroutError(f"{pack} was not used: its sha256 is {seen}, and {own.name} says {wanted}")
    elif expected is not None and seen != expected:
        raise FaroutError(
            f"{pack} was not used: its sha256 is {seen}, expected {expected}; copy it again (a pack of your own needs "
            f"its checksum beside it: sha256sum {pack.name} > {own.name})"
        )
    return origin


def same_file(pack: Path, origin: dict[str, Any]) -> bool:
    """Whether a pack has the size and time that a store remembers."""
    stat = pack.stat()
    return (stat.st_size, stat.st_mtime_ns) == (origin.get("bytes"), origin.get("mtime_ns"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
