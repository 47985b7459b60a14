"""Maximum softmax probability (Hendrycks and Gimpel, ICLR 2017)."""

from torch import Tensor

from farout.scores.base import Outputs, Score


class MSP(Score):
    """max_k softmax(f)_k. In float32 it saturates at exactly 1: confident images tie, and stay tied."""

    name = "msp"

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) in [1/C, 1]."""
        return outputs.logits.softmax(1).amax(1)
