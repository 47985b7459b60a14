"""What happens when training diverges: back to the last good checkpoint, and on with other random numbers."""

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
    """

    max_restarts: int = 0
    loss_bound: float | None = None
    lr_factor: float = 1.0

    @property
    def watches(self) -> bool:
        """Whether every step's loss is looked at before it changes a weight, which waits for the device."""
        return self.max_restarts > 0 or self.loss_bound is not None

    def judge(self, loss: float, step: int) -> None:
        """Raises Diverged for a loss that is not finite or beyond the bound."""
        bound = float("inf") if self.loss_bound is None else self.loss_bound
        if not abs(loss) < bound:
            why = "is not finite" if bound == float("inf") or loss != loss else f"is beyond {bound:g}"
            raise Diverged(f"training diverged: the loss {loss:.3g} {why} at step {step}")


@dataclass(frozen=True)
class Restart:
    """One return: at which update training had diverged, from which it went on, and what was seen."""

    diverged_at: int
    resumed_from: int
    reason: str
