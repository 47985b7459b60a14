"""Comparing speeds on a machine that does other things too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import torch


@dataclass(frozen=True)
class Turn:
    """What a task does in its turn.

    Attributes:
        work: what is timed.
        count: how many of what is compared (steps, batches) that is; times are per one of them.
        before: what must be ready first, and is not timed.
    """

    work: Callable[[], object]
    count: int = 1
    before: Callable[[], object] | None = None

    def seconds(self, device: torch.device | None) -> float:
        """Of one turn, for one of `count`."""
        if self.before is not None:
            self.before()
        _wait(device)
        start = perf_counter()
        self.work()
        _wait(device)
        return (perf_counter() - start) / self.count


def in_turns(
    tasks: Mapping[str, Turn], rounds: int, device: torch.device | None = None, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each task in each of `rounds` turns, after some that are not counted.

    Tasks take turns, so that all meet the same disturbances; the least of each is what is left without any.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(warm_up + rounds):
        for name, task in tasks.items():
            spent = task.seconds(device)
            if turn >= warm_up:
                seconds[name].append(spent)
    return seconds


def interleaved(
    tasks: Mapping[str, Callable[[], object]], rounds: int, device: torch.device | None = None
) -> dict[str, float]:
    """The least seconds of each task over `rounds` turns, after one warm-up turn."""
    seconds = in_turns({name: Turn(task) for name, task in tasks.items()}, rounds, device)
    return {name: min(spent) for name, spent in seconds.items()}


def _wait(device: torch.device | None) -> None:
    """A GPU only queues what it is told."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
