"""Scores: outputs -> one number per image, larger = more in-distribution."""

from farout.scores.base import Fitting, Ground, Head, ImageScore, Network, Outputs, Score

__all__ = ["Fitting", "Ground", "Head", "ImageScore", "Network", "Outputs", "Score"]
