"""Work that needs no network, done beside the forward pass that comes next."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Background:
    """A thread for what follows from a forward pass, in order and never more than one task behind the caller.

    An error of a task is raised to the caller, as it was, by the next `run` or `wait`. Leaving the block, also by an
    error or a signal, waits for the task in progress.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "background")
        self._task: Future[object] | None = None

    def __enter__(self) -> "Background":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def run(self, task: Callable[..., object], *given: Any) -> None:
        """Begin a task, once the one before is done."""
        self.wait()
        self._task = self._thread.submit(task, *given)

    def wait(self) -> None:
        """Until the task in progress, if any, is done."""
        task, self._task = self._task, None
        if task is not None:
            task.result()
