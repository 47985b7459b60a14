"""Maximum logit (Hendrycks et al., ICML 2022): MSP without the normalisation that hides the logits' size."""

from torch import Tensor

from farout.scores.base import Outputs, Score


class MaxLogit(Score):
    """max_k f_k."""

    name = "max_logit"

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,), in units of logits."""
        return outputs.logits.amax(1)
