"""Comparing speeds on a machine that does other things too."""

import math
from collections.abc import Callable, Mapping
from time import perf_counter

import torch


def interleaved(
    tasks: Mapping[str, Callable[[], object]], rounds: int, device: torch.device | None = None
) -> dict[str, float]:
    """The least seconds of each task over `rounds` turns, after one warm-up turn.

    Tasks take turns, so that all meet the same disturbances, and the minimum is what is left without any.
    """
    best = dict.fromkeys(tasks, math.inf)
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            _wait(device)
            start = perf_counter()
            task()
            _wait(device)
            if turn:
                best[name] = min(best[name], perf_counter() - start)
    return best


def _wait(device: torch.device | None) -> None:
    """A GPU only queues what it is told."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
