"""When training diverges: restart from a good state that was kept for it, with other random numbers."""

from dataclasses import dataclass

from farout.errors import FaroutError


class Diverged(FaroutError):
    """The loss, or a weight, is no number that further training could mend."""


@dataclass(frozen=True)
class RestartPolicy:
    """How often training that diverges restarts, from which states, and what counts as diverged.

    Energy-based training diverges now and then; its authors restarted it by hand from the last checkpoint.

    Args:
        max_restarts: how often to go back; 0 gives up at the first divergence.
        loss_bound: a loss beyond it in size has diverged (JEM's code: 1e8); None: only one that is not finite.
        lr_factor: what each restart multiplies the learning rate by.
        every: updates from one state that a divergence may return to, to the next; None: `default_interval`.
    """

    max_restarts: int = 0
    loss_bound: float | None = None
    lr_factor: float = 1.0
    every: int | None = None

    @property
    def checks_losses(self) -> bool:
        """Whether every step's loss is looked at before it changes a weight, which waits for the device."""
        return self.max_restarts > 0 or self.loss_bound is not None

    def interval(self, total: int, steps_per_epoch: int) -> int:
        """Updates between the states that a divergence returns to.

        Counted, never timed: which one it is must not depend on how fast a machine is.
        """
        return self.every or default_interval(total, steps_per_epoch)

    def check(self, loss: float, step: int) -> None:
        """Raises Diverged for a loss that is not finite or beyond the bound."""
        bound = float("inf") if self.loss_bound is None else self.loss_bound
        if not abs(loss) < bound:
            why = "is not finite" if bound == float("inf") or loss != loss else f"is beyond {bound:g}"
            raise Diverged(f"training diverged: the loss {loss:.3g} {why} at step {step}")


def default_interval(total: int, steps_per_epoch: int) -> int:
    """A quarter of an epoch, but 50 updates at least and a quarter of the run at most."""
    return max(1, min(max(50, steps_per_epoch // 4), total // 4))


@dataclass(frozen=True)
class Restart:
    """One return: at which update training had diverged, from which it went on, and what was seen."""

    diverged_at: int
    resumed_from: int
    reason: str
