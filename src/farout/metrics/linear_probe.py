"""Linear probe: the accuracy of a linear classifier on frozen features, for networks whose own head is not trained."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from farout.errors import FaroutError

ROUNDS = 500  # of the solver, at most


def linear_probe(
    train_features: ArrayLike, train_labels: ArrayLike, features: ArrayLike, labels: ArrayLike
) -> dict[str, Any]:
    """Multinomial logistic regression on features (N, D) of training images, tested on (M, D): accuracy in [0, 1].

    Features are standardised by the training images', which changes no linear classifier but lets the solver
    converge; the penalty is scikit-learn's usual one (C = 1). The papers' probe is the same classifier fitted by SGD
    on augmented images, whose best test epoch counts; here nothing is chosen by the test images. `rounds` says how
    many steps the solver took, `converged` whether it then stood still.

    Raises FaroutError for fewer than two classes and for features that are not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    fitted_on, tested_on = (np.asarray(values, dtype=np.float64) for values in (train_features, features))
    if not (np.isfinite(fitted_on).all() and np.isfinite(tested_on).all()):
        raise FaroutError("the features of a linear probe are not finite: the network has diverged, train it again")
    check_labels(train_labels)
    mean, spread = fitted_on.mean(axis=0), fitted_on.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    probe = LogisticRegression(max_iter=ROUNDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the result instead
        probe.fit((fitted_on - mean) / scale, np.asarray(train_labels))
    rounds = int(np.max(probe.n_iter_))
    right = probe.predict((tested_on - mean) / scale) == np.asarray(labels)
    return {
        "accuracy": float(right.mean()),
        "fitted_on": len(fitted_on),
        "rounds": rounds,
        "converged": rounds < ROUNDS,
    }


def check_labels(train_labels: ArrayLike) -> None:
    """Raises FaroutError where labels (N,) of training images are of one class."""
    if len(np.unique(np.asarray(train_labels))) < 2:
        raise FaroutError("a linear probe tells classes apart, and the training images have only one: give more images")
