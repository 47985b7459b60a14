"""What happens when training diverges: back to a good state kept for it, and on with other random numbers."""

from dataclasses import dataclass

from farout.errors import FaroutError


class Diverged(FaroutError):
    """The loss, or a weight, is no number that further training could mend."""


@dataclass(frozen=True)
class Survival:
    """Energy-based training diverges now and then; its authors restarted it by hand from the last checkpoint.

    Args:
        max_restarts: how often to go back; 0 gives up at the first divergence.
        loss_bound: a loss beyond it in size has diverged (JEM's code: 1e8); None: only one that is not finite.
        lr_factor: what every restart multiplies the learning rate by.
        every: updates from one state that a divergence may return to, to the next; None: `usual_distance`.
    """

    max_restarts: int = 0
    loss_bound: float | None = None
    lr_factor: float = 1.0
    every: int | None = None

    @property
    def watches(self) -> bool:
        """Whether every step's loss is looked at before it changes a weight, which waits for the device."""
        return self.max_restarts > 0 or self.loss_bound is not None

    def distance(self, total: int, steps_per_epoch: int) -> int:
        """Updates between the states that a divergence returns to.

        Counted, never timed: which one it is must not depend on how fast a machine is.
        """
        return self.every or usual_distance(total, steps_per_epoch)

    def judge(self, loss: float, step: int) -> None:
        """Raises Diverged for a loss that is not finite or beyond the bound."""
        bound = float("inf") if self.loss_bound is None else self.loss_bound
        if not abs(loss) < bound:
            why = "is not finite" if bound == float("inf") or loss != loss else f"is beyond {bound:g}"
            raise Diverged(f"training diverged: the loss {loss:.3g} {why} at step {step}")


def usual_distance(total: int, steps_per_epoch: int) -> int:
    """A quarter of an epoch, but 50 updates at least and a quarter of the run at most."""
    return max(1, min(max(50, steps_per_epoch // 4), total // 4))


@dataclass(frozen=True)
class Restart:
    """One return: at which update training had diverged, from which it went on, and what was seen."""

    diverged_at: int
    resumed_from: int
    reason: str
