"""What an update costs here, with torch.compile and without: a few made for real, on networks that can be spared."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from farout.backbones import Backbone
from farout.engine.fit import Batches, Checkpointing, Loop, Optimisation
from farout.errors import shorten
from farout.methods import Method

# Updates of each side after the first ones: as many as a comparison may take, but two at least.
TURNS, SECONDS = 8, 10.0


class Trial:
    """Updates as training makes them, of a network and a method to spend, from batches of their own.

    The first labelled batches stand for the training images that the method may want to see before the first step.
    """

    def __init__(self, model: nn.Module, method: Method, batches: Batches, optimisation: Optimisation) -> None:
        self.model, self.batches = model, batches
        self.loop = Loop(model, method, optimisation, 10**9, Checkpointing())
        model.train()
        method.train()
        first = batches(0)
        method.prepare(model, first, [batch for batch in first.values() if batch.labels is not None])

    def update(self) -> float:
        """Make one; its seconds, the device's work included."""
        start = time.monotonic()
        self.loop.update(self.batches, seed=0)
        if next(self.model.parameters()).is_cuda:
            torch.cuda.synchronize()
        return time.monotonic() - start


def seconds_per_step(trial: Trial, steps: int = 2) -> float:
    """Seconds of an update, the mean of a few after one that warms up."""
    trial.update()
    return sum(trial.update() for _ in range(steps)) / steps


def in_turns(trials: dict[str, Trial]) -> dict[str, float]:
    """The least seconds that an update takes in each trial, of turns that all meet the same disturbances."""
    first = {name: trial.update() for name, trial in trials.items()}
    turns = max(2, min(TURNS, int(SECONDS / sum(first.values()))))
    spent = [{name: trial.update() for name, trial in trials.items()} for _ in range(turns)]
    return {name: min(seconds[name] for seconds in (first, *spent)) for name in trials}


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Leaves the global generators of PyTorch (on the CPU), NumPy and Python as they were."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


@dataclass(frozen=True)
class CompileTiming:
    """What a comparison saw.

    Attributes:
        eager, compiled: seconds of an update without torch.compile of the trunk, and with it; None: not measured.
        compiling: seconds that compiling took.
        problem: why it failed.
    """

    eager: float
    compiled: float | None = None
    compiling: float = 0.0
    problem: str | None = None

    def pays(self, seconds: float) -> bool:
        """Whether work that takes so many seconds uncompiled is done sooner with compiling before it."""
        return self.compiled is not None and self.compiling + seconds * self.compiled / self.eager < seconds


def time_compiling(trial: Callable[[], Trial], worth_trying: Callable[[float], bool]) -> CompileTiming:
    """Compare updates of two fresh trials, one of them compiled.

    Args:
        trial: makes a fresh one.
        worth_trying: whether the compiler shall be tried at all, given the seconds of an update without it.
    """
    eager = trial()
    seconds = seconds_per_step(eager)
    if not worth_trying(seconds):
        return CompileTiming(seconds)
    compiled = trial()
    start = time.monotonic()
    problem = compile_problem(compiled)
    if problem is not None:
        return CompileTiming(seconds, problem=problem)
    compiling = time.monotonic() - start
    found = in_turns({"eager": eager, "compiled": compiled})
    return CompileTiming(found["eager"], found["compiled"], max(0.0, compiling - 2 * found["compiled"]))


def compile_problem(trial: Trial) -> str | None:
    """Compile a trial's trunk and make two updates with it; the reason in a few words where that fails."""
    assert isinstance(trial.model, Backbone)
    trial.model.compile_trunk()
    try:
        trial.update()
        trial.update()
    except Exception as problem:  # the compiler raises many kinds, and a run that could do without must not end by it
        return _reason(problem)
    return None


def _reason(problem: Exception) -> str:
    inner = getattr(problem, "inner_exception", None) or problem
    text = str(inner) or type(inner).__name__
    if "C++ compiler" in text:
        return "there is no C++ compiler such as g++"
    return shorten(next(filter(None, map(str.strip, text.splitlines())), type(inner).__name__), 120)
