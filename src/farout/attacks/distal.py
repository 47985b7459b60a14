"""Distal adversarials: what a network takes for a class with confidence, found from noise (Grathwohl et al., 2020).

The paper shows such images beside each other and names no settings. Every network here goes the same way: steps of
equal length, so that a network with steep logits gets no head start.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from farout.attacks.pgd import L2, Classifier, wrong_log_odds
from farout.errors import ConfigError


@dataclass(frozen=True)
class Distal:
    """Where the ascents ended, images (B, ...) in [0, 1], and p(y|x) on the way there, (steps + 1, B)."""

    images: Tensor
    confidence: Tensor


def distal_adversarials(
    classify: Classifier, start: Tensor, classes: Tensor, steps: int = 100, step_size: float = 0.25
) -> Distal:
    """From start (B, ...) in [0, 1] up the gradient of log p(y|x) at y = classes (B,), clipped to [0, 1].

    A step has the L2 norm `step_size` in pixel space before it is clipped. The odds of y are climbed, whose gradient
    has the same direction and does not vanish at p(y|x) = 1.
    """
    if steps < 1 or not step_size > 0:
        raise ConfigError(f"{steps} steps of size {step_size:g} lead nowhere: give at least 1 step longer than 0")
    points, confidence = start.detach(), []
    with torch.inference_mode(False), torch.enable_grad():
        for _ in range(steps):
            leaf = points.clone().requires_grad_()
            log_odds = -wrong_log_odds(classify(leaf), classes)
            (gradient,) = torch.autograd.grad(log_odds.sum(), leaf)
            confidence.append(log_odds.detach().sigmoid())
            points = (points + step_size * L2().direction(gradient)).clamp_(0, 1)
    with torch.no_grad():
        confidence.append((-wrong_log_odds(classify(points), classes)).sigmoid())
    return Distal(points, torch.stack(confidence))
