"""The lock of a run's folder: where it lies, and whether somebody holds it. Light to import."""

import errno
import os
from pathlib import Path

LOCKS = ".locks"  # beside the runs
_TAKEN = {errno.EACCES, errno.EAGAIN}


def lock_file(folder: Path) -> Path:
    """The file by which one process at a time works on the run in a folder."""
    return folder.parent / LOCKS / f"{folder.name}.lock"


def is_held(path: Path) -> bool:
    """Whether a process holds the lock; False where that cannot be known (no file, a disk without locks).

    A try, of a lock that is shared and let go at once, on a file opened to be read: nothing is written, and a process
    that wants the lock at this very moment asks again a twentieth of a second later.
    """
    import fcntl  # of Unix

    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _TAKEN
    finally:
        os.close(file)
    return False
