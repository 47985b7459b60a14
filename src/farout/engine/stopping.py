"""How a command ends early: SIGTERM or SIGUSR1 of a scheduler, Ctrl-C of a person.

Slurm sends SIGTERM when it ends a job, and before the time limit whatever `--signal` names, by custom SIGUSR1. Both ask
for the same, an end with the state saved; the exit status tells which it was. Light to import: it comes before torch.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar

WARNING = getattr(signal, "SIGUSR1", None)  # that time runs out; not every system has it
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", WARNING: "stopped"}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C at a place that knows what is lost and where the same command goes on; its text says so."""


class Terminated(BaseException):
    """SIGTERM or SIGUSR1. No Exception: whoever survives a failing job (a sweep, a bar) must not survive this."""


class _Requests:
    """What the signals of this process have asked for."""

    holding = False
    came: ClassVar[list[int]] = []  # in their order, of those that end the command


def on_terminate(number: int, frame: FrameType | None) -> None:
    """End at once; amid training (`deferred`) at the end of the step, unless SIGTERM comes again.

    A warning that comes twice, or SIGTERM after it, is no impatience: schedulers do that.
    """
    again = number == signal.SIGTERM and number in _Requests.came
    _Requests.came.append(number)
    if again or not _Requests.holding:
        raise Terminated


def on_interrupt(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt once; whoever presses Ctrl-C again wants no last words."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


@contextmanager
def signals() -> Iterator[None]:
    """Our handlers for the time of one command; only a process's main thread may have any.

    What a launcher has arranged for SIGUSR1 in its own processes (submitit: requeue the job) stays.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGINT, on_interrupt)
    if WARNING is not None and signal.getsignal(WARNING) == signal.SIG_DFL:
        usual[WARNING] = signal.signal(WARNING, on_terminate)
    _Requests.came = []
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def told_as(where: str) -> Iterator[None]:
    """A signal that ends the command in here says `where` that was, and what to do."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(where) from None
    except Terminated:
        raise Terminated(where) from None


@contextmanager
def deferred() -> Iterator[None]:
    """SIGTERM and SIGUSR1 wait for the end of this block, which asks for them (`asked`).

    Half an update is no state to resume from. A second SIGTERM does not wait.
    """
    _Requests.holding = True
    try:
        yield
    finally:
        _Requests.holding = False
    if asked():
        raise Terminated


def asked() -> bool:
    """Whether SIGTERM or SIGUSR1 came while they were held."""
    return bool(_Requests.came)


def word_and_status(stop: BaseException) -> tuple[str, int]:
    """What happened, in a word, and the exit status: 128 and the signal's number, so that a scheduler can tell."""
    ended_by = (_Requests.came or [signal.SIGTERM])[-1] if isinstance(stop, Terminated) else signal.SIGINT
    return WORDS[ended_by], 128 + ended_by


def report_stop(stop: BaseException) -> int:
    """Say in one line on standard error how a command ended early; returns its exit status."""
    word, status = word_and_status(stop)
    where = str(stop) or "before training or evaluation began: nothing is lost, repeat the command"
    print(f"{word} {where}", file=sys.stderr)
    return status
