"""Scores: outputs -> one number per image, larger = more in-distribution."""

from farout.scores.base import Outputs, Score

__all__ = ["Outputs", "Score"]
