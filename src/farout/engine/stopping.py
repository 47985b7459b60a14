"""How a command ends early: SIGTERM, SIGUSR1 or SIGUSR2 of a scheduler, Ctrl-C of a person.

Slurm sends SIGTERM when it ends a job, and before the time limit whatever `--signal` names, by custom SIGUSR1 or
SIGUSR2. All ask for the same, an end with the state saved; the exit status tells which it was. Light to import: it
comes before torch.
"""

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar

AGAIN = 0.02  # seconds until a signal that was lost comes once more

# That time runs out; not every system has these.
WARNINGS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", **dict.fromkeys(WARNINGS, "stopped")}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C at a place that knows what is lost and where the same command goes on; its text says so."""


class Terminated(BaseException):
    """SIGTERM or a warning. No Exception: whoever survives a failing job (a sweep, a bar) must not survive this."""


class _Requests:
    """What the signals of this process have asked for."""

    holding = False
    save = False  # the state, and go on
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
def never_lost() -> Iterator[None]:
    """A signal that comes while Python runs a finaliser or a callback of a weak reference comes again a moment later.

    What is raised there ends nothing: Python only reports it, and the command would go on as if nobody had asked. Such
    callbacks run all the time while modules are loaded.
    """
    usual = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        if isinstance(lost.exc_value, Terminated) and _Requests.came:
            number = _Requests.came.pop()
        elif isinstance(lost.exc_value, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            number = signal.SIGINT
            signal.signal(number, on_interrupt)
        else:
            usual(lost)
            return
        again = threading.Timer(AGAIN, _thread.interrupt_main, (number,))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = usual


@contextmanager
def signals() -> Iterator[None]:
    """Our handlers for the time of one command; only a process's main thread may have any.

    In a process of somebody's who has arranged something for a warning, that stays.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGINT, on_interrupt)
    for number in (each for each in WARNINGS if signal.getsignal(each) == signal.SIG_DFL):
        usual[number] = signal.signal(number, on_terminate)
    _Requests.came, _Requests.save = [], False
    try:
        with never_lost():
            yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def saved_before_requeue() -> Iterator[None]:
    """In a job whose launcher requeues it on a warning (submitit's handler): what the launcher does, after a save.

    SIGTERM means nothing there but that a warning or the end follows: the state is saved, and the work goes on, because
    of a job that ends by itself nobody knows that it was to come back.
    """
    launchers: dict[int, Callable[..., object]] = {}
    for number in WARNINGS:
        if callable(handler := signal.getsignal(number)):
            launchers[number] = handler
            signal.signal(number, on_terminate)
    usual = signal.signal(signal.SIGTERM, on_save)
    _Requests.came, _Requests.save = [], False
    try:
        with never_lost():
            yield
    except Terminated:
        handler = launchers[_Requests.came[-1]]
        handler(_Requests.came[-1], None)
        raise
    finally:
        for number, handler in {**launchers, signal.SIGTERM: usual}.items():
            signal.signal(number, handler)


def on_save(number: int, frame: FrameType | None) -> None:
    """Have the state saved at the end of the step."""
    _Requests.save = True


def save_asked() -> bool:
    """Whether the state is to be saved while the work goes on; asked once, it is no longer."""
    asked_for, _Requests.save = _Requests.save, False
    return asked_for


@contextmanager
def unheard() -> Iterator[None]:
    """What is started in this block hears no signal that ends a command: schedulers send them to every process."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, *WARNINGS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    """SIGTERM and warnings wait for the end of this block, which asks for them (`asked`).

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
    """Whether SIGTERM or a warning came while they were held."""
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
