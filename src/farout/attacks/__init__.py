"""Attacks on a classifier of pixels: projected gradient descent, JEM's refined classifier, distal adversarials."""

from farout.attacks.distal import Distal, distal_adversarials
from farout.attacks.pgd import L2, PGD, Classifier, LInf, Norm, correct
from farout.attacks.refined import RefinedClassifier

__all__ = ["L2", "PGD", "Classifier", "Distal", "LInf", "Norm", "RefinedClassifier", "correct", "distal_adversarials"]
