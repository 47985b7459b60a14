"""What all commands share: options that are checked as they are read, one line for what is wrong, exit statuses."""

import argparse
import functools
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

from farout.command_names import as_typed
from farout.engine.stopping import Terminated, signals, word_and_status
from farout.errors import ConfigError, FaroutError, one_line, shorten
from farout.places import INSTALLED

DONE, FAILED, NOBODY_READS = 0, 2, 141  # 128 + SIGPIPE, as shells say
OVERRIDE = re.compile(r"[+~]*[\w./@]+=")  # of Hydra, with a value
NO_MEMORY = re.compile(r"(not enough|can't allocate|out of) memory", re.IGNORECASE)


class Main(Protocol):
    """What a command does with its words (None: those of the command line); returns the exit status."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


class Parser(argparse.ArgumentParser):
    """argparse that raises what it complains of as a ConfigError, and shows descriptions as they are written."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})

    def format_help(self) -> str:
        """With examples in the words by which the command was called."""
        return as_typed(super().format_help())

    def error(self, message: str) -> NoReturn:
        option, _, reason = message.removeprefix("argument ").partition(": ")
        if message.startswith("argument "):
            message = f"{option}: {reason}" if reason.startswith(("invalid", "expected")) else f"{option} {reason}"
        raise ConfigError(f"{message}: see --help")


def overrides_apart(arguments: Sequence[str] | None, greedy: Sequence[str] = ("--rows", "--seeds")) -> list[str]:
    """The words (None: of the command line), KEY=VALUE first that stand after an option which takes all that follows.

    So overrides may stand anywhere, as in `--seeds 1 2 logger=none`.
    """
    apart, kept, takes = list[str](), list[str](), False
    for word in sys.argv[1:] if arguments is None else arguments:
        takes = word in greedy if word.startswith("-") else takes
        (apart if takes and OVERRIDE.match(word) else kept).append(word)
    return apart + kept


def whole(least: int = 1, most: int = 2**63 - 1) -> Callable[[str], int]:
    """The type of an option that takes a whole number in [least, most]."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{shorten(text)} is not a whole number") from None
        if not least <= value <= most:
            bound = f"at least {least}" if value < least else f"at most {most}"
            raise argparse.ArgumentTypeError(f"{shorten(text)} must be {bound}")
        return value

    return read


def number(
    least: float = 0.0, most: float = math.inf, above: bool = False, below: bool = False
) -> Callable[[str], float]:
    """The type of an option that takes a finite number in [least, most]; `above`, `below`: the bound itself is not."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{shorten(text)} is not a number")
        if value < least or (above and value == least):
            raise argparse.ArgumentTypeError(f"{text} must be {'above' if above else 'at least'} {least:g}")
        if value > most or (below and value == most):
            raise argparse.ArgumentTypeError(f"{text} must be {'below' if below else 'at most'} {most:g}")
        return value

    return read


seed = whole(0, 2**32 - 1)


def folder_to_write(option: str, path: Path | None) -> None:
    """Raise ConfigError where `path` cannot become a folder that takes files; nothing is made.

    Asked before the work begins, which would otherwise be lost at its end.
    """
    if path is None:
        return
    try:
        there = next(parent for parent in (path, *path.absolute().parents) if parent.exists() or parent.is_symlink())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option} {path} cannot be a folder ({plain(error)}): give another") from None
    if not there.is_dir():
        raise ConfigError(f"{option} {path} cannot be a folder, because {there} is a file: give another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} {path} cannot be written, because {there} is read-only: give another")


def file_to_write(option: str, path: Path | None) -> None:
    """The same of a file."""
    if path is None:
        return
    folder_to_write(option, path.parent)
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder: name a file")


def require_checkout(what: str) -> None:
    """Raise ConfigError where farout came as a wheel, because `what` is a matter of the repository's own files."""
    if INSTALLED:
        raise ConfigError(f"{what} is work on the repository, and this farout is a wheel: do it in a checkout")


def plain(error: BaseException) -> str:
    """What an error says, in one line; the operating system's without its number."""
    from farout.files import WHEN_WRITING, refusal

    if isinstance(error, OSError) and error.errno in WHEN_WRITING and error.filename is not None:
        return one_line(refusal(error.filename, error))  # of a place where nobody thought of the disk
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror)
    return one_line(str(error)) or type(error).__name__


def guarded(main: Main) -> Main:
    """`main` of a command: what a user can cause becomes one line on stderr and a status; bugs keep their traceback.

    SIGTERM and SIGUSR1, by which schedulers end jobs, work like Ctrl-C, with statuses of their own:
    `farout.engine.stopping`.
    """

    @functools.wraps(main)
    def command(arguments: Sequence[str] | None = None) -> int:
        with signals():
            return reported(main, arguments)

    return command


def reported(main: Main, arguments: Sequence[str] | None = None) -> int:
    """Call `main`; its status, or that of the error which it ended with, after the one line."""
    _settle_streams()
    try:
        status = main(arguments)
    except (KeyboardInterrupt, Terminated) as stop:
        word, status = word_and_status(stop)
        _complain(f"{word} {stop}" if str(stop) else f"{word}: repeat the command")
    except SystemExit as leaving:  # argparse after --help, rich where nobody reads any more
        if isinstance(leaving.__context__, BrokenPipeError):
            return _flushed(NOBODY_READS)
        if not isinstance(leaving.code, int | None):
            raise
        status = leaving.code or DONE
    except Exception as error:
        status = _status_of(error)
    return _flushed(status)


def hear() -> None:
    """Messages alone on standard output; of Hydra's plugins (launchers, sweepers) also what they do."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stdout)
    for name in ("farout", "hydra_plugins"):
        logging.getLogger(name).setLevel(logging.INFO)


def _status_of(error: Exception) -> int:
    """Say what is wrong; raises again what no user can have caused."""
    if isinstance(error, BrokenPipeError):
        return NOBODY_READS
    if isinstance(error, FaroutError | OSError):
        _complain(f"error: {plain(error)}")
    elif isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        _complain("error: there is not enough memory for this: ask for less at a time (images, batch size, network)")
    else:
        raise error
    return FAILED


def _complain(line: str) -> None:
    with suppress(OSError):
        print(one_line(line), file=sys.stderr)


def _settle_streams() -> None:
    """Closed streams lead nowhere, and what an encoding lacks is escaped: no print may fail for that."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _flushed(status: int) -> int:
    """The status after everything is written: a reader that has gone (`| head`) is no error worth words."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _complain(f"error: {plain(error)}")
        status = NOBODY_READS if isinstance(error, BrokenPipeError) else FAILED
    if status == NOBODY_READS:
        with suppress(OSError, ValueError):  # a test's stream has no number
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    return status
