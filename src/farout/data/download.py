"""Fetching one file: mirrors in order, checksum verified before the file gets its name."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from farout.errors import FaroutError
from farout.files import new_file, whole_file

log = logging.getLogger(__name__)
CHUNK = 1 << 20
TIMEOUT = 60  # seconds without an answer
SCHEMES = ("http", "https", "file")
Progress = Callable[[str, int, int | None], None]  # (file name, bytes so far, total or None)


def silent(name: str, done: int, total: int | None) -> None:
    """Progress that shows nothing."""


def file_name(url: str) -> str:
    """The last part of an address, without its query."""
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name


def checksum_of(path: Path, algorithm: str) -> str:
    """`md5:...` or `sha256:...` of a file."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def verify(path: Path, checksum: str | None, name: str | None = None) -> str:
    """The checksum of `path`, which must be `checksum` unless that is None (sha256, and a line says so)."""
    if checksum is None:
        seen = checksum_of(path, "sha256")
        log.warning("%s is unpinned; what came is %s", name or path.name, seen)
        return seen
    seen = checksum_of(path, checksum.partition(":")[0])
    if seen != checksum:
        raise FaroutError(f"{name or path.name} was not used: it has {seen}, expected {checksum}")
    return seen


def fetch(urls: Sequence[str], checksum: str | None, target: Path, progress: Progress = silent) -> str:
    """Download to `target` from the first mirror that serves the right bytes; returns the checksum.

    Nothing is left behind on failure. Raises FaroutError naming what each mirror said.
    """
    complaints = []
    for url in urls:
        try:
            with whole_file(target) as part:
                _retrieve(url, part, target.name, progress)
                return verify(part, checksum, target.name)
        except (OSError, FaroutError, RuntimeError) as error:
            complaints.append(f"{url}: {error}")
            log.warning("%s failed (%s)", url, error)
    raise FaroutError(f"could not download {target.name}: {'; '.join(complaints)}")


def _retrieve(url: str, part: Path, name: str, progress: Progress) -> None:
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme == "gdrive":
        _from_google_drive(url, part)
        return
    if scheme not in SCHEMES:
        raise FaroutError(f"addresses may start with {', '.join(SCHEMES)}, not {scheme!r}")
    request = urllib.request.Request(url, headers={"User-Agent": "farout"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, new_file(part) as out:
        length = response.headers.get("Content-Length")
        total, done = int(length) if length else None, 0
        while block := response.read(CHUNK):
            out.write(block)
            done += len(block)
            progress(name, done, total)
    if total is not None and done != total:
        raise FaroutError(f"the connection ended after {done:,} of {total:,} bytes")


def _from_google_drive(url: str, part: Path) -> None:
    """`gdrive://FILE_ID`, through torchvision, which wants the package gdown."""
    from torchvision.datasets.utils import download_file_from_google_drive

    file_id = urllib.parse.urlsplit(url).netloc or urllib.parse.urlsplit(url).path.strip("/")
    try:
        download_file_from_google_drive(file_id, part.parent, part.name)
    except ModuleNotFoundError as error:
        raise FaroutError("Google Drive needs `pip install gdown`; or give the file with --from") from error
