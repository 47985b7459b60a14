"""Scores: outputs -> one number per image, larger = more in-distribution."""

from farout.scores.base import Fitting, Head, ImageScore, Network, Outputs, Score, TrainFacts

__all__ = ["Fitting", "Head", "ImageScore", "Network", "Outputs", "Score", "TrainFacts"]
