"""The scores as plain functions of NumPy arrays or tensors, for outputs that come from anywhere.

    from farout.scores.functional import energy, knn
    energy(logits)                       # (N, C) -> (N,), larger = more in-distribution
    knn(features, train_features, k=50)  # (N, D), (M, D) -> (N,)

Arrays give arrays, tensors give tensors; what the first argument is decides, and everything is computed on its device.
Each function is the score of its name (a file beside this one, with equation and source), fitted on the training
outputs that it is given: who scores many sets fits the class once instead. ODIN and approximate mass need the network
itself and have no function. Functions of logits alone can be differentiated; the others detach what they are given.

All raise FaroutError, in one line, for other shapes than those written here and for half precision, and ConfigError
for settings out of range.

Throughout: logits (N, C) and features (N, D) of the images to score, features being the input of the last linear layer;
weight (C, D) and bias (C,) of that layer; train_features (M, D), train_logits (M, C) and train_labels (M,), integers
from 0, of the ID training images. Floating-point numbers are float32 or float64.
"""

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farout.errors import FaroutError
from farout.scores.ash import ASH, Variant
from farout.scores.base import Fitting, Head, Outputs, Score
from farout.scores.dice import DICE
from farout.scores.energy import Energy
from farout.scores.gen import GEN
from farout.scores.gradnorm import GradNorm
from farout.scores.knn import KNN
from farout.scores.mahalanobis import Mahalanobis
from farout.scores.mahalanobis_cider import MahalanobisCIDER
from farout.scores.max_logit import MaxLogit
from farout.scores.msp import MSP
from farout.scores.react import ReAct
from farout.scores.rmds import RMDS
from farout.scores.scale import SCALE
from farout.scores.she import SHE
from farout.scores.uniform_cross_entropy import UniformCrossEntropy
from farout.scores.vim import ViM

__all__ = [
    "ash",
    "dice",
    "energy",
    "gen",
    "gradnorm",
    "knn",
    "mahalanobis",
    "mahalanobis_cider",
    "max_logit",
    "msp",
    "react",
    "rmds",
    "scale",
    "she",
    "uniform_cross_entropy",
    "vim",
]

Array = TypeVar("Array", Tensor, NDArray[Any])
Given = Tensor | NDArray[Any]


def msp(logits: Array) -> Array:
    """Maximum softmax probability (Hendrycks and Gimpel, ICLR 2017): (N, C) -> (N,) in [1/C, 1]."""
    return _of_logits(MSP(), logits)


def max_logit(logits: Array) -> Array:
    """Maximum logit (Hendrycks et al., ICML 2022): (N, C) -> (N,)."""
    return _of_logits(MaxLogit(), logits)


def energy(logits: Array, temperature: float = 1.0) -> Array:
    """Negative free energy (Liu et al., NeurIPS 2020): (N, C) -> (N,), T log sum_k exp(f_k / T)."""
    return _of_logits(Energy(temperature), logits)


def uniform_cross_entropy(logits: Array) -> Array:
    """Cross-entropy of the uniform distribution and the prediction, image by image: (N, C) -> (N,), at least log C.

    `farout.uniform_cross_entropy` is its mean, which Outlier Exposure (Hendrycks et al., ICLR 2019) lowers on outliers.
    """
    return _of_logits(UniformCrossEntropy(), logits)


def gen(logits: Array, gamma: float = 0.1, m: int = 100) -> Array:
    """Generalised entropy (Liu, Lochman and Zach, CVPR 2023): (N, C) -> (N,) float64, at most 0."""
    return _of_logits(GEN(gamma, m), logits)


def gradnorm(features: Array, logits: Given, temperature: float = 1.0) -> Array:
    """GradNorm of the last layer (Huang, Geng and Li, NeurIPS 2021): (N, D), (N, C) -> (N,) float64, at least 0."""
    return _of_features(GradNorm(temperature), features, logits=_beside(features, logits, "logits"))


def knn(features: Array, train_features: Given, k: int = 50) -> Array:
    """Minus the distance to the k-th nearest unit training feature (Sun et al., ICML 2022): (N, D), (M, D) -> (N,).

    In float64 and exact; `farout.scores.knn.KNN` also bounds its memory and chooses what searches.
    """
    return _of_features(KNN(k), features, _train(features, train_features))


def mahalanobis(features: Array, train_features: Given, train_labels: Given) -> Array:
    """Minus half the squared Mahalanobis distance to the closest class (Lee et al., NeurIPS 2018), one layer, no step.

    (N, D), (M, D), (M,) -> (N,) float64, at most 0.
    """
    return _of_features(Mahalanobis(), features, _train(features, train_features, train_labels))


def mahalanobis_cider(features: Array, train_features: Given, train_labels: Given) -> Array:
    """The same of unit features with their total covariance, as the code of CIDER (Ming et al., ICLR 2023) has it.

    (N, D), (M, D), (M,) -> (N,) float64, at most 0.
    """
    return _of_features(MahalanobisCIDER(), features, _train(features, train_features, train_labels))


def rmds(features: Array, train_features: Given, train_labels: Given) -> Array:
    """Relative Mahalanobis distance (Ren et al., 2021): (N, D), (M, D), (M,) -> (N,) float64."""
    return _of_features(RMDS(), features, _train(features, train_features, train_labels))


def she(features: Array, logits: Given, train_features: Given, train_logits: Given, train_labels: Given) -> Array:
    """Simplified Hopfield energy (Zhang et al., ICLR 2023): inner product with the pattern of the predicted class.

    (N, D), (N, C), (M, D), (M, C), (M,) -> (N,) float64.
    """
    own, known = _beside(features, logits, "logits"), _beside(features, train_logits, "train_logits")
    _same_width(own, "logits", known, "train_logits")
    return _of_features(SHE(), features, _train(features, train_features, train_labels, known), logits=own)


def react(features: Array, weight: Given, bias: Given, train_features: Given, percentile: float = 90.0) -> Array:
    """ReAct (Sun, Guo and Li, NeurIPS 2021), energy of clipped features: (N, D), (C, D), (C,), (M, D) -> (N,)."""
    train = _train(features, train_features)
    return _of_features(ReAct(percentile), features, train, _head(features, weight, bias))


def ash(features: Array, weight: Given, bias: Given, variant: Variant = "s", percentile: float = 90.0) -> Array:
    """ASH-S, -B or -P (Djurisic et al., ICLR 2023) of pooled features: (N, D), (C, D), (C,) -> (N,) float64."""
    return _of_features(ASH(variant, percentile), features, head=_head(features, weight, bias))


def scale(features: Array, weight: Given, bias: Given, percentile: float = 85.0) -> Array:
    """SCALE (Xu et al., ICLR 2024) of pooled features: (N, D), (C, D), (C,) -> (N,) float64."""
    return _of_features(SCALE(percentile), features, head=_head(features, weight, bias))


def dice(features: Array, weight: Given, bias: Given, train_features: Given, p: float = 90.0) -> Array:
    """DICE (Sun and Li, ECCV 2022), energy of sparse weights: (N, D), (C, D), (C,), (M, D) -> (N,)."""
    return _of_features(DICE(p), features, _train(features, train_features), _head(features, weight, bias))


def vim(features: Array, weight: Given, bias: Given, train_features: Given, dimension: int | None = None) -> Array:
    """Virtual-logit matching (Wang et al., CVPR 2022): (N, D), (C, D), (C,), (M, D) -> (N,) float64."""
    head, train = _head(features, weight, bias), _train(features, train_features)
    head = Head(head.weight.double(), head.bias.double())  # logits as exact as everything else of it
    train = Outputs(head(train.features.double()), train.features)
    logits = head(_beside(features, features, "features").double())
    return _of_features(ViM(dimension), features, train, head, logits)


def _of_logits(score: Score, logits: Array) -> Array:
    own = _floats(logits, "logits", 2)
    return _as_given(logits, score(Outputs(own, own[:, :0])))


def _of_features(
    score: Score, features: Array, train: Outputs | None = None, head: Head | None = None, logits: Tensor | None = None
) -> Array:
    """(N,) values of a score that is fitted on `train` and `head`, where it needs them."""
    own = _beside(features, features, "features")
    if score.needs:
        score.fit(Fitting(head or Head(own[:0], own[:0, 0]), train))
    return _as_given(features, score(Outputs(own[:, :0] if logits is None else logits, own)))


def _train(
    features: Given, train_features: Given, train_labels: Given | None = None, logits: Tensor | None = None
) -> Outputs:
    """The training outputs beside `features`, whose width they must have."""
    known = _beside(features, train_features, "train_features")
    _same_width(_floats(features, "features", 2), "features", known, "train_features")
    labels = None if train_labels is None else _labels(train_labels).to(known.device)
    return Outputs(known[:, :0] if logits is None else logits, known, labels)


def _head(features: Given, weight: Given, bias: Given) -> Head:
    """The last layer beside `features`, whose width it must have."""
    matrix = _beside(features, weight, "weight")
    _same_width(_floats(features, "features", 2), "features", matrix, "weight")
    vector = _floats(bias, "bias", 1).detach().to(matrix.device)
    if len(vector) != len(matrix):
        raise FaroutError(f"bias has {len(vector)} entries and weight {len(matrix)} rows: both need one for each class")
    return Head(matrix, vector)


def _beside(features: Given, values: Given, name: str) -> Tensor:
    """`values` as a detached matrix on the device of `features`."""
    device = features.device if isinstance(features, Tensor) else "cpu"
    return _floats(values, name, 2).detach().to(device)


def _same_width(a: Tensor, of_a: str, b: Tensor, of_b: str) -> None:
    if a.shape[1] != b.shape[1]:
        raise FaroutError(f"{of_a} have {a.shape[1]} columns and {of_b} {b.shape[1]}: they must come from one network")


def _floats(values: Given, name: str, dimensions: int) -> Tensor:
    """`values` as a tensor; raises FaroutError for another number of dimensions and for anything but floats."""
    tensor = _tensor(values, name)
    if not tensor.is_floating_point():
        raise FaroutError(f"{name} hold {tensor.dtype}: give float32 or float64")
    if tensor.ndim != dimensions:
        shape = "a row for each image" if dimensions == 2 else "one number for each class"
        raise FaroutError(f"{name} of shape {tuple(tensor.shape)}: give {dimensions} dimensions, {shape}")
    return tensor


def _labels(values: Given) -> Tensor:
    labels = _tensor(values, "train_labels")
    if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
        raise FaroutError(f"train_labels of shape {tuple(labels.shape)} and {labels.dtype}: give an integer an image")
    return labels.long()


def _tensor(values: Given, name: str) -> Tensor:
    """A tensor as it is; of an array one that shares its memory where PyTorch can have that."""
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    try:
        # Writable, though nothing is written: PyTorch knows no read-only memory, nor reversed rows or bytes.
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except TypeError:
        raise FaroutError(f"{name} hold {array.dtype}: give an array or a tensor of numbers") from None


def _as_given(given: Array, found: Tensor) -> Array:
    return found if isinstance(given, Tensor) else found.numpy()
