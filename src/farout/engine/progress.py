"""What a person sees of long work: a bar on a terminal, and where there is none a line a minute on standard error."""

import sys
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from farout.command_names import as_typed

FIRST_LINE, NEXT_LINE = 15.0, 60.0  # seconds from the start of the work, and from the line before
SPEED_OVER = 600.0  # seconds back that the time left is told from: a step of JEM's may take one of them
GIB = 2**30

# No wrapping by width: a log line stays one line when output goes to a file.
console = Console(soft_wrap=True, highlight=False)
errors = Console(soft_wrap=True, highlight=False, stderr=True)


def say(message: str) -> None:
    """One plain line for people, commands in it as they are typed here; brackets are text, as in paths."""
    console.print(as_typed(message), markup=False)


def draw_no_bars() -> None:
    """Lines alone from now on: other processes have the same terminal, and bars would be drawn over each other."""
    Lines.alone = True


def for_terminal() -> Console | None:
    """Where a bar can be drawn; None where neither stream is a terminal: batch jobs, notebooks, pipes."""
    if Lines.alone:
        return None
    if sys.stdout.isatty():
        return console
    return errors if sys.stderr.isatty() else None  # of `train.py > log`, say


class Bar:
    """Progress over `total` steps (None: nobody knows), with a note and the time left.

    Args:
        note: makes the note of a line, when one is due; on a terminal the note is what `Bar.note` was told.
        unit: what is counted, in front of the numbers of a line.
    """

    def __init__(
        self, title: str, total: int | None, start: int = 0, note: Callable[[], str] | None = None, unit: str = ""
    ) -> None:
        place = for_terminal()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=place or errors,
            disable=place is None,
            redirect_stdout=place is console,
            speed_estimate_period=SPEED_OVER,
            get_time=lambda: monotonic(),
        )
        self._task = self._progress.add_task(title, total=total, completed=start, note="")
        self._lines = Lines(self._progress, self._task, note, unit) if place is None else None

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(self._task, steps)
        self._say_when_due()

    def at(self, step: int) -> None:
        """Move to an absolute position, forwards or back."""
        self._progress.update(self._task, completed=step)
        self._say_when_due()

    def note(self, text: str) -> None:
        self._progress.update(self._task, note=text)

    def _say_when_due(self) -> None:
        if self._lines is not None:
            self._lines.say_when_due()


class Lines:
    """The lines of one `Bar`: the first soon after its start, then one a minute, also over many short bars."""

    alone = False  # whether this process draws no bars
    last = -NEXT_LINE  # when any piece of work of this process had one

    def __init__(self, progress: Progress, task: TaskID, note: Callable[[], str] | None, unit: str = "") -> None:
        self.progress, self.task, self.note = progress, task, note
        self.unit = f"{unit} " if unit else ""
        self.due = max(monotonic() + FIRST_LINE, Lines.last + NEXT_LINE)

    def say_when_due(self) -> None:
        """Print a line, where it is time for one."""
        if monotonic() < self.due:
            return
        errors.print(self.text(), markup=False)
        Lines.last = monotonic()
        self.due = Lines.last + NEXT_LINE

    def text(self) -> str:
        """Position, time left, note and memory, as far as they are known."""
        task = self.progress.tasks[self.progress.task_ids.index(self.task)]
        done = f"{self.unit}{task.completed:,.0f}"
        if task.total:
            done += f" of {task.total:,.0f} ({task.percentage:.1f} %)"
        left = task.time_remaining if task.total and not task.finished else None
        note = self.note() if self.note is not None else _speed(task.speed)
        parts = [f"{done}, {duration(left)} left" if left is not None else done, note, *device_memory()]
        return f"{task.description}: {' | '.join(filter(None, parts))}"


def _speed(speed: float | None) -> str:
    return "" if not speed else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s"


def duration(seconds: float) -> str:
    """A time in the two units that matter: 40 s, 12 min, 3 h 5 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} d {minutes // 60 % 24} h"


def device_memory() -> list[str]:
    """How full each CUDA device is on which this process holds memory; nothing where it uses none."""
    torch: Any = sys.modules.get("torch")  # not imported for this
    if torch is None or not torch.cuda.is_initialized():
        return []
    used = [index for index in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(index)]
    return [_filled(index, *torch.cuda.mem_get_info(index)) for index in used]


def _filled(index: int, free: int, total: int) -> str:
    return f"cuda:{index} {(total - free) / GIB:.1f} of {total / GIB:.1f} GiB"
