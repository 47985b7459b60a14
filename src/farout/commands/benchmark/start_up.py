"""How long a command thinks before it answers: user seconds of child processes, to which no disk adds."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from farout.commands.benchmark.lines import AnyLine, Line, Place, Side, Unmeasured
from farout.errors import FaroutError
from farout.places import ROOT

HELP = (str(ROOT / "train.py"), "--help")
TORCH = ("-c", "import torch")


def lines(place: Place) -> Iterator[AnyLine]:
    """`train.py --help` against the import of PyTorch alone."""
    if place.size == "cuda":
        yield Unmeasured("start-up", "user seconds of a command", "no matter of the GPU: see the CPU's table")
        return
    seconds: dict[Sequence[str], list[float]] = {HELP: [], TORCH: []}
    rounds, warm_up = place.pick(1, 5, 3), place.pick(0, 1, 1)
    for _ in range(rounds + warm_up):
        for words, spent in seconds.items():
            spent.append(user_seconds(words))
    ours, baseline = (
        Side.of(what, seconds[words][warm_up:]) for what, words in (("train.py --help", HELP), ("import torch", TORCH))
    )
    yield Line(
        "start-up", "user seconds of a command", "a new process", ours, baseline, "both end with status 0", rounds
    )


def user_seconds(words: Sequence[str]) -> float:
    """User time of a Python process with these words; raises FaroutError where it fails."""
    command = [sys.executable, *words]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise FaroutError(f"{' '.join(words)} ends with status {child.returncode}: nothing is compared")
    return usage.ru_utime
