"""Many figures drawn by several processes.

Matplotlib is not made for threads, and a process forked from one in which PyTorch has threads may hang. So each helper
is a fresh Python that loads Matplotlib and no PyTorch: a second or so, repaid where there are many figures. It ends
when its input does: whatever becomes of the process that asked, killed ones too, none is left.
"""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import TracebackType

from farout.report.figures.sketches import Drawing, Sketch

WORTH = 12  # figures for each helper: about what drawing itself takes until the helper is ready
MOST = 8  # helpers

Keep = Callable[[Drawing], object]


def draw_all(sketches: Sequence[Sketch], png: bool, keep: Keep = lambda drawing: None) -> list[Drawing]:
    """All figures, in order; `keep` is called for each as it comes, from any thread.

    This process draws as well. What fails in a helper is drawn here once more, so that an error is what it would be
    without helpers.
    """
    studio = _Studio(sketches, png, keep)
    count = helpers(len(sketches))
    if count == 0:
        studio.draw_here(studio.waiting)
    else:
        studio.draw_with(count)
    return [studio.drawn[i] for i in range(len(sketches))]


def helpers(figures: int) -> int:
    """How many processes are worth starting beside this one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores - 1, figures // WORTH, MOST)


class _Studio:
    """What is still to be drawn, and what is done, by its place among all."""

    def __init__(self, sketches: Sequence[Sketch], png: bool, keep: Keep) -> None:
        self.waiting = deque(enumerate(sketches))
        self.failed: deque[tuple[int, Sketch]] = deque()
        self.drawn: dict[int, Drawing] = {}
        self.png, self.keep = png, keep

    def draw_with(self, count: int) -> None:
        """With helpers; on an error or a signal they are gone when this returns."""
        with ThreadPoolExecutor(count) as threads, ExitStack() as open_helpers:
            open_helpers.callback(self.waiting.clear)
            jobs = [threads.submit(self._by, open_helpers.enter_context(Painter())) for _ in range(count)]
            self.draw_here(self.waiting)
            for job in jobs:
                job.result()
        self.draw_here(self.failed)

    def draw_here(self, queue: "deque[tuple[int, Sketch]]") -> None:
        """In this process, until the queue is empty."""
        while (task := _next(queue)) is not None:
            self._done(task[0], task[1].drawing(self.png))

    def _by(self, painter: "Painter") -> None:
        while (task := _next(self.waiting)) is not None:
            drawing = painter.drawing(task[1], self.png)
            if drawing is None:
                self.failed.append(task)
            else:
                self._done(task[0], drawing)
            if painter.gone:
                return

    def _done(self, place: int, drawing: Drawing) -> None:
        self.keep(drawing)
        self.drawn[place] = drawing


def _next(queue: "deque[tuple[int, Sketch]]") -> tuple[int, Sketch] | None:
    try:
        return queue.popleft()
    except IndexError:
        return None


class Painter:
    """A helper process: sketches in, drawings out, pickled, one at a time."""

    def __init__(self) -> None:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the process that asked
        )
        self.gone = False

    def __enter__(self) -> "Painter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what could not be sent any more
                assert pipe is not None
                pipe.close()

    def drawing(self, sketch: Sketch, png: bool) -> Drawing | None:
        """None where it failed there, or the helper is gone."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            pickle.dump((sketch, png), self.process.stdin)
            self.process.stdin.flush()
            answer: Drawing | None = pickle.load(self.process.stdout)
        except (OSError, EOFError, pickle.PickleError, AttributeError, TypeError, ValueError):
            self.gone = True
            return None
        return answer


def serve() -> None:
    """What a helper does until its input ends."""
    tasks, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever is printed is no answer
    with suppress(EOFError, BrokenPipeError, pickle.UnpicklingError):  # nobody asks any more
        while True:
            sketch, png = pickle.load(tasks)
            try:
                answer = sketch.drawing(png)
            except Exception:  # the process that asked meets it again, and says it
                answer = None
            pickle.dump(answer, answers)
            answers.flush()


if __name__ == "__main__":
    serve()
