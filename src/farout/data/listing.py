"""Which images a folder or an archive of it holds: the same ones, by the same names, for both.

Links are followed (in an archive only inside it). Hidden files and folders, and those that systems make for
themselves, are no part of a set. What else is no image is passed over, counted and said.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farout.data.archives import LINK_LIMIT, Archive, Member, open_archive, wants_head
from farout.data.decode import HEAD, is_picture, naming, read_file, suffix_of
from farout.errors import FaroutError, printable

log = logging.getLogger(__name__)
Keep = Callable[[str], bool]
MOST_HOPS, MOST_VISITS = 40, 100  # links that follow each other; ways that lead to one folder
DEAD, CIRCLE, OTHER = "links that lead nowhere", "links in a circle", "devices or pipes"
CLIMBS = "names that lead out of it"
_OF_SYSTEMS = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "@__thumb", "@recycle", "#recycle"}
_OF_SYSTEMS |= {"$recycle.bin", "system volume information", "lost+found"}


def is_hidden(part: str) -> bool:
    """Whether a file's or folder's own name says that it is no part of a set: hidden, or a system's own."""
    return part.startswith(".") or part.casefold() in _OF_SYSTEMS


def in_byte_order(names: Iterable[str]) -> list[str]:
    """Sorted as bytes, whatever the locale; names that are no UTF-8 too."""
    return sorted(names, key=os.fsencode)


@dataclass(frozen=True)
class Listing:
    """The images of a folder or an archive, found without decoding one.

    Attributes:
        path: the folder or archive.
        names: of its images, '/' between folders, in byte order.
        heads: the first bytes of those whose name does not tell their kind, and of WebP files.
        passed_over: how many files of which suffix (or for which other reason) are no images.
    """

    path: Path
    names: list[str]
    heads: Mapping[str, bytes]
    passed_over: dict[str, int]
    archive: Archive | None = None
    members: Mapping[str, Member] = field(default_factory=dict)

    def contents(self, keep: Keep | None = None) -> Iterator[tuple[str, bytes]]:
        """(name, content) of all images, or of those to `keep`, in stored order; raises FaroutError naming the file."""
        names = self.names if keep is None else [name for name in self.names if keep(name)]
        if self.archive is not None:
            yield from self.archive.contents((name, self.members[name]) for name in names)
            return
        for name in names:
            with naming(self.path / name):
                content = read_file(self.path / name)
            yield name, content

    def where(self, name: str) -> str:
        """For messages."""
        return str(self.path / name) if self.archive is None else f"{name} in {self.path}"

    def say(self) -> None:
        """One line about what was passed over, if anything was."""
        if self.passed_over:
            log.warning("%s", passed_over_line(self.path, self.passed_over))


def passed_over_line(path: Path, passed_over: Mapping[str, int]) -> str:
    """How many files of which suffix are no images."""
    parts = ", ".join(f"{count:,} {printable(kind, 40)}" for kind, count in passed_over.items())
    return f"{printable(path)}: passed over {sum(passed_over.values()):,} that are no images ({parts})"


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """What a file system refuses inside (permissions, paths that are too long) becomes one line."""
    try:
        yield
    except OSError as error:
        where = printable(error.filename if isinstance(error.filename, str) else path)
        raise FaroutError(f"{where} cannot be read ({error.strerror or error})") from None


def list_images(path: Path | str, wanted: Keep | None = None) -> Listing:
    """The images of a folder, tar (any compression) or zip; or the files that are `wanted`, whatever they are.

    Raises FaroutError, also for what is none of these.
    """
    path, passed = Path(path), Counter[str]()
    names: list[str] = []
    heads: dict[str, bytes] = {}
    with reaching(path):
        found, archive, members = _files_of(path, passed)
        for name, head in found:
            if is_picture(name, head) if wanted is None else wanted(name):
                names.append(name)
                heads |= {name: head} if head else {}
            else:
                passed[suffix_of(name) or "without suffix"] += 1
    return Listing(path, in_byte_order(names), heads, dict(sorted(passed.items())), archive, members)


def _files_of(
    path: Path, passed: Counter[str]
) -> tuple[Iterable[tuple[str, bytes]], Archive | None, dict[str, Member]]:
    """(name, first bytes) of all files of a folder or archive; the archive, and its members by name."""
    if path.is_dir():
        return _folder_heads(path, passed), None, {}
    archive = open_archive(path) if path.is_file() else None
    if archive is None:
        what = "neither a folder nor a tar nor a zip file" if path.exists() else "not there"
        raise FaroutError(f"{printable(path)} is {what}")
    members = dict(_walk(_tree(archive.members(), passed), passed))
    return [(name, member.head) for name, member in members.items()], archive, members


def _folder_heads(path: Path, passed: Counter[str]) -> Iterator[tuple[str, bytes]]:
    for name in folder_files(path, passed):
        head = b""
        if wants_head(name):
            with naming(path / name), (path / name).open("rb") as file:
                head = file.read(HEAD)
        yield name, head


def folder_files(path: Path, passed: Counter[str]) -> Iterator[str]:
    """Names of the regular files below a folder, links followed, but hidden parts; others are counted in `passed`."""
    visits: Counter[Any] = Counter()
    todo: list[tuple[str, tuple[Any, ...]]] = [("", (_identity(path),))]
    while todo:
        prefix, above = todo.pop()
        for entry in _entries(path / prefix):
            if is_hidden(entry.name):
                continue
            kind = _kind(entry)
            if kind == "file":
                yield prefix + entry.name
            elif kind != "folder":
                passed[kind] += 1
            elif _may_enter(inner := _identity(entry), above, visits, passed):
                todo.append((f"{prefix}{entry.name}/", (*above, inner)))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _identity(folder: os.DirEntry[str] | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry[str]) -> str:
    """`file`, `folder` or why it is neither; a link is what it leads to. Nothing is opened: a pipe would wait."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    return DEAD if entry.is_symlink() and not os.path.exists(entry.path) else OTHER


def _may_enter(inner: Any, above: Iterable[Any], visits: Counter[Any], passed: Counter[str]) -> bool:
    """Whether to go into a folder that a path leads to: not where that path began in it, nor over and over again."""
    if inner in above:
        passed[CIRCLE] += 1
        return False
    visits[inner] += 1
    if visits[inner] > MOST_VISITS:
        raise FaroutError(f"more than {MOST_VISITS:,} links lead to one folder: give the folder without its links")
    return True


class _Folder:
    """A folder of an archive."""

    def __init__(self, parent: _Folder | None = None) -> None:
        self.parent = parent
        self.entries: dict[str, _Folder | Member] = {}


def _tree(members: Iterable[Member], passed: Counter[str]) -> _Folder:
    """What extraction would make: what comes later replaces what has the same name."""
    root = _Folder()
    for member in members:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts or len(member.name) > LINK_LIMIT:
            passed[CLIMBS] += 1
        elif parts:
            _put(root, parts, member)
    return root


def _put(root: _Folder, parts: list[str], member: Member) -> None:
    folder = root
    for part in parts[:-1]:
        inner = folder.entries.get(part)
        if not isinstance(inner, _Folder):
            inner = folder.entries[part] = _Folder(folder)
        folder = inner
    name = parts[-1]
    if member.kind == "folder":
        if not isinstance(folder.entries.get(name), _Folder):
            folder.entries[name] = _Folder(folder)
        return
    if member.kind == "same":  # another name of a file that came before
        found = _follow(root, member.target.lstrip("/"))
        member = found if isinstance(found, Member) and found.kind == "file" else member
    folder.entries[name] = member


def _follow(folder: _Folder, target: str) -> _Folder | Member | None:
    """What a path from `folder` leads to, through links; None: out of the archive, nowhere or in a circle."""
    if target.startswith("/"):
        return None
    todo, hops = target.split("/")[::-1], 0
    while todo:
        part = todo.pop()
        node = folder.parent if part == ".." else folder if part in ("", ".") else folder.entries.get(part)
        if isinstance(node, _Folder):
            folder = node
        elif node is None or node.kind != "link":
            return None if todo else node
        else:
            hops += 1
            if hops > MOST_HOPS or len(todo) > LINK_LIMIT or node.target.startswith("/"):
                return None
            todo += node.target.split("/")[::-1]
    return folder


def _walk(root: _Folder, passed: Counter[str]) -> Iterator[tuple[str, Member]]:
    """(name, file) as `folder_files` would find them after extraction."""
    visits: Counter[Any] = Counter()
    todo: list[tuple[str, _Folder, tuple[_Folder, ...]]] = [("", root, (root,))]
    while todo:
        prefix, folder, above = todo.pop()
        for part, node in folder.entries.items():
            if is_hidden(part):
                continue
            found = _follow(folder, node.target) if isinstance(node, Member) and node.kind == "link" else node
            if isinstance(found, _Folder):
                if _may_enter(found, above, visits, passed):
                    todo.append((f"{prefix}{part}/", found, (*above, found)))
            elif found is not None and found.kind == "file":
                yield prefix + part, found
            else:
                passed[OTHER if found is not None and found.kind == "other" else DEAD] += 1
