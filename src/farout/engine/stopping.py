"""How a command ends early: SIGTERM of a scheduler, Ctrl-C of a person. Light to import: it comes before torch does."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # exit statuses, as a shell would say them


class Interrupted(KeyboardInterrupt):
    """Ctrl-C at a place that knows what is lost and where the same command goes on; its text says so."""


class Terminated(BaseException):
    """SIGTERM. No Exception: whoever survives a failing job (a sweep, a progress bar) must not survive this."""


class _Requests:
    """What the signals of this process have asked for."""

    holding = False
    terminate = False


def on_terminate(number: int, frame: FrameType | None) -> None:
    """End at once; amid training (`deferred`) at the end of the step, unless asked again."""
    if _Requests.holding and not _Requests.terminate:
        _Requests.terminate = True
        return
    raise Terminated


def on_interrupt(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt once; whoever presses Ctrl-C again wants no last words."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


@contextmanager
def signals() -> Iterator[None]:
    """Our handlers for the time of one command; only a process's main thread may have any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGINT, on_interrupt)
    _Requests.terminate = False
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
    """SIGTERM waits for the end of this block, which asks for it (`asked`): half an update is no state to resume from.

    A second SIGTERM does not wait.
    """
    _Requests.holding = True
    try:
        yield
    finally:
        _Requests.holding = False
    if asked():
        raise Terminated


def asked() -> bool:
    """Whether SIGTERM came while it was held."""
    return _Requests.terminate


def report_stop(stop: BaseException) -> int:
    """Say in one line on standard error how a command ended early; returns its exit status."""
    word, status = ("terminated", TERMINATED) if isinstance(stop, Terminated) else ("interrupted", INTERRUPTED)
    where = str(stop) or "before training or evaluation began: nothing is lost, repeat the command"
    print(f"{word} {where}", file=sys.stderr)
    return status
