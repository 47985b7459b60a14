# src/farout/scores/gap.py
"""Distance between the two largest logits."""

from farout.scores.base import Score


class Gap(Score):
    name = "gap"

    def __call__(self, outputs):
        largest = outputs.logits.topk(2, dim=1).values
        return largest[:, 0] - largest[:, 1]
