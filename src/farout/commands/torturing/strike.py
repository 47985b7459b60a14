"""Run a Python script that sends itself a signal when it is about to change a folder for the n-th time.

    python strike.py NUMBER SIGNAL DELAY FOLDER SCRIPT ARGUMENTS...

Opening a file to write it, renaming, linking, removing and making folders are changes. With NUMBER 0 nothing is sent;
at its end the process says how many changes there were. DELAY: seconds after the change has begun, 0: before it.
Nothing but the standard library is loaded before the script.
"""

import atexit
import os
import runpy
import signal
import sys
import threading
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
COUNTED = "changes: "


class Strike:
    """An audit hook that counts, and strikes once."""

    def __init__(self, number: int, sent: int, delay: float, folder: str) -> None:
        self.number, self.sent, self.delay, self.folder = number, sent, delay, folder
        self.seen = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in CHANGES and event != "open":
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        if not isinstance(arguments[0], str | os.PathLike) or not os.fspath(arguments[0]).startswith(self.folder):
            return
        self.seen += 1
        if self.seen != self.number:
            return
        if self.delay:
            threading.Timer(self.delay, os.kill, (os.getpid(), self.sent)).start()
        else:
            os.kill(os.getpid(), self.sent)


def main() -> None:
    """Become the script."""
    number, sent, delay, folder, script, *arguments = sys.argv[1:]
    strike = Strike(int(number), signal.Signals[sent], float(delay), folder)
    sys.argv, sys.path[0] = [script, *arguments], str(Path(script).resolve().parent)
    sys.addaudithook(strike)
    atexit.register(lambda: print(f"\n{COUNTED}{strike.seen}", flush=True))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
