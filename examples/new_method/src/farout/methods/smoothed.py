# src/farout/methods/smoothed.py
"""Cross-entropy with smoothed labels."""

from torch.nn import functional as F

from farout.methods.base import Method


class SmoothedCrossEntropy(Method):
    """The constructor's arguments are the knobs on the command line; their annotations are their types."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def loss(self, model, batches):
        labelled = batches["labelled"]
        logits = model(labelled.images)
        return {"total": F.cross_entropy(logits, labelled.targets, label_smoothing=self.smoothing)}
