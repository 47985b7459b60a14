"""A command under way: started, waited for, struck from outside or from within."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farout.commands.torturing import strike
from farout.errors import FaroutError
from farout.files import new_file
from farout.places import ROOT

SIGNALS = {name: signal.Signals[f"SIG{name}"] for name in ("KILL", "TERM", "USR1")}
TIMEOUT = 900.0  # seconds after which a command that does not end is a failure
LONGEST_DELAY = 0.003  # seconds: about as long as writing a checkpoint takes


@dataclass(frozen=True)
class FromWithin:
    """The process strikes itself at its n-th change of the folder; 0: never, it only counts them."""

    number: int = 0
    sent: str = "KILL"
    delay: float = 0.0

    @classmethod
    def drawn(cls, moments: random.Random, changes: int, sent: str) -> "FromWithin":
        """Before one of `changes`, or amid it."""
        delay = moments.random() * LONGEST_DELAY if moments.random() < 0.5 else 0.0
        return cls(moments.randint(1, changes), sent, delay)


class Command:
    """A Python script of the checkout as a process of its own session, what it says in a file."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        said: Path,
        within: FromWithin | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        self.file = said
        script = [str(ROOT / words[0]), *words[1:]]
        if within is not None:
            facts = [str(within.number), f"SIG{within.sent}", f"{within.delay:.6f}", str(folder)]
            script = [strike.__file__, *facts, *script]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with new_file(said) as output:
            self.process = subprocess.Popen(
                [*inside, sys.executable, *script],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        """All words until now."""
        return self.file.read_text(errors="replace")

    def last_words(self) -> str:
        """The last line, for people."""
        lines = [line for line in self.said().splitlines() if line.strip() and not line.startswith(strike.COUNTED)]
        return lines[-1].strip()[:110] if lines else "before it said a word"

    def until(self, words: Sequence[str]) -> None:
        """Wait until it says one of these, or ends."""
        deadline = time.monotonic() + TIMEOUT
        while self.process.poll() is None and time.monotonic() < deadline:
            if any(word in self.said() for word in words):
                return
            time.sleep(0.01)

    def sent_after(self, seconds: float, name: str) -> None:
        """Send a signal then, unless it has ended."""
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(SIGNALS[name])

    def status(self) -> int:
        """Wait for the end; raises FaroutError where there is none."""
        try:
            self.process.wait(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise FaroutError(f"a command did not end in {TIMEOUT:.0f} s; it said: {self.last_words()}") from None
        finally:
            self.process.kill()  # nothing, where it has ended
        assert self.process.returncode is not None
        return self.process.returncode

    def was_hit(self, name: str) -> bool:
        """Whether the signal ended it; False: it was done before. Raises FaroutError for any other end."""
        status, number = self.status(), SIGNALS[name].value
        expected = {0, -number} | ({128 + number} if name != "KILL" else set())
        if status not in expected or "Traceback" in self.said():
            raise FaroutError(f"status {status} after {SIGNALS[name].name}: {self.said().strip()[-300:]}")
        return status != 0

    def succeeded(self) -> None:
        """Wait for the end; raises FaroutError unless all went well."""
        if (status := self.status()) or "Traceback" in self.said():
            raise FaroutError(f"status {status}, not 0: {self.said().strip()[-300:]}")

    def changes(self) -> int:
        """How often it changed its folder, of one that counts."""
        counted = [line for line in self.said().splitlines() if line.startswith(strike.COUNTED)]
        return int(counted[-1].removeprefix(strike.COUNTED))

    def left_processes(self) -> bool:
        """Whether processes of its session outlive it; they are given a second, and then ended."""
        for _ in range(20):
            try:
                os.killpg(self.process.pid, 0)
            except OSError:
                return False
            time.sleep(0.05)
        os.killpg(self.process.pid, signal.SIGKILL)
        return True
