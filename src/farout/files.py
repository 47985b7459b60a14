"""The only writer of files: whole or absent, on the disk before they take their names, readable as the umask says."""

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from farout.errors import FaroutError, MissingDataError, UnwritableError

# .NAME.PID@HOST.tmp is a file that process PID of that machine is about to finish; versions before had no host.
TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)(?:@(?P<host>[^/@]*))?\.tmp", re.DOTALL)
BUILDING = "-building-"  # .NAME-building-... is a folder that is about to become NAME
LONGEST_WRITE = 24 * 3600  # seconds after which nobody is still writing, whatever process has that number now

_ROOM = "make room and repeat the command; what was there before is as it was"
_ELSEWHERE = "give a folder that you may write to, e.g. paths.outputs=FOLDER"
_IN_THE_WAY = "move away what stands there, or give another name"
REFUSALS = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("your share of the disk is full", _ROOM),
    errno.EROFS: ("the disk is read-only", _ELSEWHERE),
    errno.EACCES: ("permission denied", _ELSEWHERE),
    errno.EPERM: ("permission denied", _ELSEWHERE),
    errno.ENAMETOOLONG: ("its name is too long for this disk", "give shorter names"),
    errno.ENOTDIR: ("a file stands where its folder should be", _IN_THE_WAY),
    errno.EEXIST: ("a file stands where its folder should be", _IN_THE_WAY),
    errno.EISDIR: ("a folder stands in its place", _IN_THE_WAY),
}
WHEN_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no reader ever meets these


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a neighbouring temporary file, flush it to disk, then rename it over `path`.

    Killed at any moment, `path` holds the old content or the new, never a part. Raises UnwritableError, in one line,
    where the disk is full or read-only, or the folder is not the user's to write to; the old content stays.
    """
    with writing(path), whole_file(path) as temporary, temporary.open("wb") as file:
        write(file)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name of a neighbouring temporary file to fill: flushed and renamed over `path` at the end, gone on an error.

    So are then those of the same name that killed processes left. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    remove_leftovers([path.parent], of=path.name)
    _flush_folder(path.parent)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A neighbouring temporary folder to fill (by `new_file`): it replaces `folder` at the end; gone after an error.

    Raises OSError.
    """
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}{BUILDING}"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes it the owner's alone
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is on the disk when the block ends, for places that nobody reads yet. Raises OSError."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def append_line(path: Path, line: bytes) -> None:
    """Append a line, after the half one that a killed process may have left. Raises UnwritableError."""
    with writing(path), path.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(line + b"\n")


def also_as(file: Path, name: Path) -> None:
    """Give a file a second name, at once instead of what had it; a copy where there are no links."""
    # Not the name under which `name` is written: left by a kill, it would be written into, and the file with it.
    link = temporary_name(name.with_name(f"{name.name}.link"))
    try:
        link.unlink(missing_ok=True)
        os.link(file, link)
        os.replace(link, name)
    except OSError:
        with file.open("rb") as content:
            write_atomically(name, functools.partial(shutil.copyfileobj, content))
    finally:
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever the disk refuses while `path` is written becomes one UnwritableError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise UnwritableError(refusal(path, error)) from None


def refusal(path: Path | str, error: OSError) -> str:
    """What the disk refused, why, and what to do."""
    why, advice = REFUSALS.get(error.errno or 0, (error.strerror, "look at the disk, then repeat the command"))
    return f"{path} cannot be written ({why}): {advice}"


def _flush_folder(folder: Path) -> None:
    """Let the new name survive a power cut too, where the file system offers that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write bytes atomically, making the folder if needed; raises UnwritableError as `write_atomically`."""
    write_atomically(path, lambda file: file.write(data))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, with newlines as they are; names that are no UTF-8 are escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], compress: bool = False) -> None:
    """Write arrays atomically in NumPy's npz format."""
    save = np.savez_compressed if compress else np.savez
    write_atomically(path, lambda file: save(file, allow_pickle=False, **arrays))


def save_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented for people."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def load_json(path: Path, advice: str = "remove it and run the command again") -> Any:
    """Read a JSON file; an absent one is a MissingDataError, a damaged one a FaroutError that ends in `advice`."""
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise MissingDataError(f"{path} is not there: {advice}") from None
    except OSError as error:
        raise FaroutError(f"{path} cannot be read ({error.strerror}): {advice}") from None
    except (ValueError, RecursionError) as error:  # also: not UTF-8, numbers of thousands of digits
        raise FaroutError(f"{path} is not valid JSON ({_first_line(error)}): {advice}") from None


def load_object(path: Path, advice: str = "remove it and run the command again") -> dict[str, Any]:
    """`load_json` of a file that must hold an object."""
    value = load_json(path, advice)
    if not isinstance(value, dict):
        raise FaroutError(f"{path} holds no JSON object: {advice}")
    return value


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def temporary_name(path: Path) -> Path:
    """Where a file lies while this process writes it."""
    return path.with_name(f".{path.name}.{os.getpid()}@{_host()}.tmp")


def _host() -> str:
    return re.sub(r"[/@\0]", "", socket.gethostname())[:40]


def remove_leftovers(folders: Iterable[Path], sole_writer: bool = False, of: str | None = None) -> None:
    """Remove the temporary files that killed processes left directly in these folders; `of`: those of that file only.

    A file of a process that may still be at work stays: one that runs on this machine, or on another one within the
    last day. `sole_writer` says that a lock keeps all others out, which settles it for files that name no machine.
    """
    for folder in folders:
        try:
            found = [entry for entry in os.scandir(folder) if entry.name.endswith(".tmp")]
        except OSError:
            continue
        for entry in found:
            known = TEMPORARY.fullmatch(entry.name)
            if (
                known
                and of in (None, known["name"])
                and ((sole_writer and known["host"] is None) or not _may_be_written(Path(entry.path), known))
            ):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _may_be_written(path: Path, known: re.Match[str]) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return True  # gone by now
    if age > LONGEST_WRITE:
        return False
    return known["host"] not in (None, _host()) or _alive(int(known["pid"]))


def _alive(pid: int) -> bool:
    """Whether another process of that number runs on this machine."""
    if pid == os.getpid():
        return False  # of a process that had the number before: this one is not writing now
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # somebody else's
    return pid > 0


def follows(path: Path, source: Path) -> bool:
    """Whether a file was written after the one that it is made from, or that one is absent."""
    if not source.exists():
        return True
    return path.exists() and path.stat().st_mtime_ns >= source.stat().st_mtime_ns


def set_aside(path: Path, why: str = "damaged") -> Path:
    """Rename what is damaged to NAME.damaged, NAME.damaged-2, ...: nothing is deleted. Returns the new place."""
    place, number = path.with_name(f"{path.name}.{why}"), 1
    while os.path.lexists(place):
        number += 1
        place = path.with_name(f"{path.name}.{why}-{number}")
    with writing(place):
        os.rename(path, place)
    return place
