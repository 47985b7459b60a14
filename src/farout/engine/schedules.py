"""Learning rates as functions of the update's index."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Shape = Literal["cosine", "epoch_cosine", "steps"]
Algorithm = Literal["sgd", "adam"]


def cosine_lr(update: int, total: int, lr: float, lr_end: float = 1e-6) -> float:
    """Learning rate of the 0-based `update` of `total`: a half cosine from `lr` to `lr_end`.

    Both official codes step the scheduler before the optimiser, so update i uses step i + 1: `lr` itself is never
    used, and the last update runs at exactly `lr_end`.
    """
    return lr_end + (lr - lr_end) * 0.5 * (1 + math.cos(math.pi * (update + 1) / total))


@dataclass(frozen=True)
class WarmUp:
    """A linear rise, update by update, from `lr` to what the schedule gives at its end.

    Args:
        lr: where the rise begins.
        epochs: how long it takes.
        counts_from_one: the official CIDER code's slip, to mirror its runs. Its formula expects epochs that begin at
            1 and gets 0, so epoch 0 extrapolates the line backwards, to NEGATIVE rates for most of the epoch where the
            target is high; the rise begins in epoch 1 and ends with epoch `epochs`, inclusive.
        steps: how long it takes, in updates instead of epochs (JEM: 1000, from 0); 0: `epochs` says. As in JEM's code
            the rise writes over the rate of every update: it leads to the full rate, and milestones that pass during
            it have no effect, not even afterwards.
    """

    lr: float = 1e-3
    epochs: int = 10
    counts_from_one: bool = False
    steps: int = 0

    def covers(self, update: int, steps_per_epoch: int) -> bool:
        """Whether the 0-based update belongs to the rise."""
        if self.steps:
            return update < self.steps
        return update // steps_per_epoch < self.epochs + self.counts_from_one

    def last_epoch(self, steps_per_epoch: int) -> int:
        """The epoch whose rate the rise leads to."""
        return self.steps // steps_per_epoch if self.steps else self.epochs

    def writes_over(self, milestone: int, steps_per_epoch: int) -> bool:
        """Whether the drop after epoch `milestone` falls into a rise counted in steps, the update at its top included.

        JEM's code lowers the rate that stands, and the rise then sets the rate without regard to it.
        """
        return self.steps > 0 and (milestone + 1) * steps_per_epoch <= self.steps

    def at(self, update: int, steps_per_epoch: int, target: float) -> float:
        """Learning rate of a 0-based update within the rise to `target`."""
        risen = update / self.steps if self.steps else (update / steps_per_epoch - self.counts_from_one) / self.epochs
        return self.lr + risen * (target - self.lr)


def epoch_cosine(epoch: int, epochs: int, lr: float, lr_end: float) -> float:
    """Learning rate of a whole 0-based epoch: a half cosine from `lr` that would reach `lr_end` at `epochs`."""
    return lr_end + (lr - lr_end) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def step_decay(epoch: int, lr: float, milestones: Sequence[int], factor: float) -> float:
    """Learning rate of a 0-based epoch: times `factor` for every milestone that lies before it.

    A milestone is the last epoch at the old rate (CIDER's "100, 150, 180"); where a paper means the first epoch at the
    new one (JEM's 160 and 180), give one less.
    """
    return float(lr * factor ** sum(epoch > milestone for milestone in milestones))


def warmed_up(update: int, steps_per_epoch: int, schedule: Callable[[int], float], warm_up: WarmUp | None) -> float:
    """Learning rate of a 0-based update: `schedule` of its epoch, after a rise to it if there is one."""
    if warm_up is not None and warm_up.covers(update, steps_per_epoch):
        return warm_up.at(update, steps_per_epoch, schedule(warm_up.last_epoch(steps_per_epoch)))
    return schedule(update // steps_per_epoch)


def warmup_cosine(
    update: int, steps_per_epoch: int, epochs: int, lr: float, lr_end: float, warm_up: WarmUp | None = None
) -> float:
    """`epoch_cosine` with an optional rise to it (CIDER: lr_end = lr / 1000, rise over 10 epochs from 0.001)."""
    return warmed_up(update, steps_per_epoch, lambda epoch: epoch_cosine(epoch, epochs, lr, lr_end), warm_up)


def warmup_steps(
    update: int,
    steps_per_epoch: int,
    lr: float,
    milestones: Sequence[int],
    factor: float,
    warm_up: WarmUp | None = None,
) -> float:
    """`step_decay` with an optional rise to it (CIDER's first release: 0.1 after epochs 100, 150 and 180)."""
    if warm_up is not None:
        milestones = [epoch for epoch in milestones if not warm_up.writes_over(epoch, steps_per_epoch)]
    return warmed_up(update, steps_per_epoch, lambda epoch: step_decay(epoch, lr, milestones, factor), warm_up)


@dataclass(frozen=True)
class LRSchedule:
    """The learning rate of a run, update by update.

    Args:
        shape: "cosine" is `cosine_lr`, a step lower with every update; "epoch_cosine" and "steps" are `epoch_cosine`
            and `step_decay`, the same for a whole epoch.
        epochs: of the whole run (epoch_cosine).
        milestones, factor: of `step_decay` (steps).
        warm_up: a rise before it (epoch_cosine and steps).
    """

    shape: Shape = "cosine"
    epochs: int = 1
    milestones: Sequence[int] = ()
    factor: float = 0.1
    warm_up: WarmUp | None = None

    def rate(self, update: int, total: int, steps_per_epoch: int, lr: float, lr_end: float) -> float:
        """Learning rate of the 0-based `update` of `total`; `lr_end` is where cosines end."""
        if self.shape == "steps":
            return warmup_steps(update, steps_per_epoch, lr, self.milestones, self.factor, self.warm_up)
        if self.shape == "epoch_cosine":
            return warmup_cosine(update, steps_per_epoch, self.epochs, lr, lr_end, self.warm_up)
        return cosine_lr(update, total, lr, lr_end)
