"""Files in tar archives (any compression) and zips: names, links and content as extraction would give them.

Nothing is unpacked, and no link leads out of the archive. What is damaged, encrypted or absurdly large is refused.
"""

from __future__ import annotations

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farout.data.decode import FILE_LIMIT, HEAD, needs_head
from farout.errors import FaroutError, printable

LINK_LIMIT = 4096  # bytes of where a link leads, as in a file system
HEADER_LIMIT = 2**20  # bytes of a tar's extended header
TAIL_LIMIT = 2**26  # bytes after a tar's end that are read to verify the checksum of its compression
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x5d\0\0")  # of compressed tars
# zipfile raises RuntimeError for passwords, NotImplementedError for unknown compressions; hostile sizes the others.
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, struct.error, ValueError,
    RuntimeError, OverflowError, IndexError, KeyError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """An entry: `kind` is file, folder, link (symbolic), same (hard link) or other; `place` orders stored content."""

    name: str
    kind: str
    item: Any = None
    size: int = 0
    place: int = 0
    target: str = ""
    head: bytes = b""


def open_archive(path: Path) -> Archive | None:
    """A regular file as the archive it is, or None; by its first bytes, so that what is cut is still known."""
    with _one_line(path):
        with path.open("rb") as file:
            start = file.read(512)
        if start.startswith((b"PK\3\4", b"PK\5\6")):
            return ZipArchive(path)
        # the oldest tars have no mark
        if start.startswith(_MAGIC) or start[257:262] == b"ustar" or (len(start) == 512 and _is_tar(path)):
            return TarArchive(path)
        return ZipArchive(path) if zipfile.is_zipfile(path) else None


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except _DAMAGE:
        return False


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        reason = printable((str(error).splitlines() or [type(error).__name__])[0])
        raise FaroutError(f"{printable(path)} is damaged ({reason}): fetch or make it again") from None


class _Header(tarfile.TarInfo):
    """A tar's header; where tarfile quietly ends at one that is damaged or cut, this is an error."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}, or no end mark") from None

    def _block(self, count: int) -> int:
        if count < 0:  # tarfile would go back, and round and round
            raise tarfile.ReadError("a negative size")
        return super()._block(count)  # type: ignore[misc]

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        extended = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *_PAX)
        if self.type in extended and self.size > HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tarfile_)  # type: ignore[misc]


_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


class Archive:
    """The members of an archive as they are stored, and the content of some. Raises FaroutError throughout."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def members(self) -> Iterator[Member]:
        raise NotImplementedError

    def contents(self, wanted: Iterable[tuple[str, Member]]) -> Iterator[tuple[str, bytes]]:
        """(name, content) of these, in stored order."""
        ordered = sorted(wanted, key=lambda pair: pair[1].place)
        for name, member in ordered:
            if member.size > FILE_LIMIT:
                raise FaroutError(
                    f"{printable(name)} in {printable(self.path)} has {member.size:,} bytes: "
                    f"an image has at most {FILE_LIMIT >> 20} MiB, leave it out"
                )
        with _one_line(self.path):
            yield from self._contents(ordered)

    def _contents(self, ordered: list[tuple[str, Member]]) -> Iterator[tuple[str, bytes]]:
        raise NotImplementedError


class TarArchive(Archive):
    """A tar of any compression."""

    def members(self) -> Iterator[Member]:
        with _one_line(self.path), tarfile.open(self.path, tarinfo=_Header) as tar:
            for item in tar:
                yield self._member(tar, item)
            for _ in range(TAIL_LIMIT >> 20):  # to the end, where compressions keep their checksum
                if not tar.fileobj.read(1 << 20):
                    break

    @staticmethod
    def _member(tar: tarfile.TarFile, item: tarfile.TarInfo) -> Member:
        if item.isdir():
            return Member(item.name, "folder")
        if item.issym() or item.islnk():
            return Member(item.name, "link" if item.issym() else "same", target=item.linkname)
        if not item.isreg():
            return Member(item.name, "other")
        head = b""
        if wants_head(item.name):
            content = tar.extractfile(item)
            head = content.read(HEAD) if content else b""
        return Member(item.name, "file", item, item.size, item.offset_data, head=head)

    def _contents(self, ordered: list[tuple[str, Member]]) -> Iterator[tuple[str, bytes]]:
        with tarfile.open(self.path) as tar:
            for name, member in ordered:
                content = tar.extractfile(member.item)
                assert content is not None
                read = content.read()
                if len(read) < member.size:
                    raise tarfile.ReadError("unexpected end of data")
                yield name, read


class ZipArchive(Archive):
    """A zip, from whatever system."""

    def members(self) -> Iterator[Member]:
        with _one_line(self.path), zipfile.ZipFile(self.path) as archive:
            for item in archive.infolist():
                yield self._member(archive, item)

    def _member(self, archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Member:
        name = _zip_name(item).replace("\\", "/")
        mode = item.external_attr >> 16 if item.create_system == 3 else 0
        if name.endswith("/") or stat.S_ISDIR(mode):
            return Member(name, "folder")
        if stat.S_ISLNK(mode):
            return Member(
                name, "link", target=self._head(archive, item, name, LINK_LIMIT).decode(errors="surrogateescape")
            )
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            return Member(name, "other")
        readable = wants_head(name) and not item.flag_bits & 1
        head = self._head(archive, item, name, HEAD) if readable else b""
        return Member(name, "file", item, item.file_size, item.header_offset, head=head)

    def _head(self, archive: zipfile.ZipFile, item: zipfile.ZipInfo, name: str, count: int) -> bytes:
        self._refuse_encrypted(item, name)
        with archive.open(item) as file:
            return file.read(count)

    def _refuse_encrypted(self, item: zipfile.ZipInfo, name: str) -> None:
        if item.flag_bits & 1:
            raise FaroutError(
                f"{printable(name)} in {printable(self.path)} is encrypted: make the zip without a password"
            )

    def _contents(self, ordered: list[tuple[str, Member]]) -> Iterator[tuple[str, bytes]]:
        with zipfile.ZipFile(self.path) as archive:
            for name, member in ordered:
                self._refuse_encrypted(member.item, name)
                yield name, _unpacked(archive, member.item)


def _unpacked(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> bytes:
    """At most as much as the zip says; read at once, zipfile would first unpack all that is there."""
    step = 1 << 16 if item.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else 1 << 12
    with archive.open(item) as file:
        return b"".join(iter(lambda: file.read(step), b""))


def _zip_name(item: zipfile.ZipInfo) -> str:
    """The name that was packed: zips that do not say UTF-8 may hold it all the same, or beside the name."""
    if item.flag_bits & 0x800:
        return item.filename
    raw = item.filename.encode("cp437")
    extra = item.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == 0x7075 and extra[5:9] == struct.pack("<I", zlib.crc32(raw)):
            return extra[9 : 4 + size].decode()
        extra = extra[4 + size :]
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode(errors="surrogateescape") if item.create_system == 3 else item.filename


def wants_head(name: str) -> bool:
    """Whether a file's first bytes must be read to know its format, or for WebP whether it is a pack's strip."""
    return needs_head(name) or name.lower().endswith(".webp")
