"""What a command leaves, file by file, without what differs between two equal runs: seconds, dates and commits."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from farout.report.page.training import read_training_curves

TIMED = {"seconds", "date", "commit", "conditions"}  # keys of records
STAMPS = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?|commit [0-9a-f]{12}\+?")  # in pages
CACHE = "cache"  # on which nothing depends


def ends(folder: Path) -> dict[str, str]:
    """PATH -> hash of the content, of every file but locks and the cache of outputs."""
    return {name: hashlib.sha256(_content(path)).hexdigest() for name, path in _files(folder) if _counts(name)}


def temporary_files(folder: Path) -> list[str]:
    """What only a process that is at work may have."""
    return sorted(name for name, _ in _files(folder) if "-building-" in name or name.endswith(".tmp"))


def held_locks(folder: Path) -> list[str]:
    """Locks that somebody still holds."""
    return [name for name, path in _files(folder) if path.suffix == ".lock" and _is_held(path)]


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for _, path in _files(folder))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _counts(name: str) -> bool:
    return not name.startswith(f"{CACHE}/") and not name.endswith(".lock")


def _is_held(path: Path) -> bool:
    with suppress(Timeout), FileLock(path, timeout=0):
        return False
    return True


def _content(path: Path) -> bytes:
    if path.name == "metrics.jsonl":  # a resumed run logs some steps twice, and each counts as it came last
        curves = read_training_curves(path.parent)
        return b"" if curves is None else b"".join(part.tobytes() for part in (curves.steps, *curves.values.values()))
    content = path.read_bytes()
    if path.suffix == ".json":
        return json.dumps(_timeless(json.loads(content))).encode()
    if path.suffix == ".html":
        return STAMPS.sub("", content.decode()).encode()
    return content


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in TIMED}
    return [_timeless(part) for part in value] if isinstance(value, list) else value
