"""Small disks: a tmpfs in a mount namespace of its own, which ends with this process and which nobody else sees."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from farout.errors import FaroutError
from farout.places import ROOT

PAGE = 4096  # bytes, in which a tmpfs counts


class SmallDisk:
    """A disk that can be full or read-only; commands see it at `place` when started with `inside` before them."""

    def __init__(self, holder: "subprocess.Popen[bytes]", place: Path) -> None:
        self.place = place
        self.inside = ["nsenter", f"--target={holder.pid}", "--user", "--mount", "--preserve-credentials"]
        self.inside.append(f"--wd={ROOT}")
        self.seen_from_here = Path(f"/proc/{holder.pid}/root{place}")

    def remount(self, options: str) -> None:
        """E.g. `size=64k`, `ro`. Raises FaroutError."""
        words = [*self.inside, "mount", "-o", f"remount,{options}", str(self.place)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FaroutError(f"a small disk could not be remounted with {options}: {done.stderr.strip()}")

    def leave_room(self, size: float) -> None:
        """From now on there is room for so many bytes more."""
        found = os.statvfs(self.seen_from_here)
        self.remount(f"size={(found.f_blocks - found.f_bfree) * found.f_frsize + int(size / PAGE) * PAGE}")


@contextmanager
def small_disk(place: Path) -> Iterator[SmallDisk | None]:
    """One over the folder `place`; None where that is not permitted."""
    words = f"mount -t tmpfs farout {place} && touch {place}/it && rm {place}/it && echo ready && exec cat"
    place.mkdir(parents=True, exist_ok=True)
    try:
        # `cat` ends with this process, killed or not, and the namespace with `cat`.
        holder = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        yield None
        return
    with holder:
        assert holder.stdout is not None
        disk = SmallDisk(holder, place) if holder.stdout.readline() else None
        try:
            yield disk if disk is not None and _works(disk) else None
        finally:
            with suppress(OSError):
                holder.stdin.close()  # type: ignore[union-attr]


def _works(disk: SmallDisk) -> bool:
    """Whether it can be entered, changed, and looked at from here."""
    try:
        disk.remount("rw")
        return not any(disk.seen_from_here.iterdir())
    except (OSError, FaroutError):
        return False
