"""What a person sees of long work: a bar on a terminal, nothing but a line at the end elsewhere."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from farout.command_names import as_typed

# No wrapping by width: a log line stays one line when output goes to a file.
console = Console(soft_wrap=True, highlight=False)


def say(message: str) -> None:
    """One plain line for people, commands in it as they are typed here; brackets are text, as in paths."""
    console.print(as_typed(message), markup=False)


class Bar:
    """Progress over `total` steps (None: nobody knows) with a note and the time left; silent off a terminal."""

    def __init__(self, title: str, total: int | None, start: int = 0) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not sys.stdout.isatty(),
        )
        self._task = self._progress.add_task(title, total=total, completed=start, note="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(self._task, steps)

    def at(self, step: int) -> None:
        """Move to an absolute position, forwards or back."""
        self._progress.update(self._task, completed=step)

    def note(self, text: str) -> None:
        self._progress.update(self._task, note=text)
