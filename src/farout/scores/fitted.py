"""What a score may be fitted on, and the errors where it is not there."""

from typing import TypeVar

from torch import Tensor

from farout.errors import FaroutError
from farout.scores.base import Fitting, Outputs
from farout.scores.blocks import column_means

T = TypeVar("T")


def train_outputs(fitting: Fitting, name: str) -> Outputs:
    """The training outputs; raises FaroutError where they are absent, empty or not finite."""
    train = fitting.train
    if train is None or len(train) == 0:
        raise FaroutError(f"score {name} is fitted on training outputs: give it those of the ID training images")
    if not bool(column_means(train.features).isfinite().all()):  # finite only if every summand is
        raise FaroutError(f"score {name}: the training features hold NaN or infinite values, so check the weights")
    return train


def train_labels(train: Outputs, name: str) -> Tensor:
    """(N,) int64 labels of the training outputs; raises FaroutError where images have none."""
    if train.labels is None or bool((train.labels < 0).any()):
        raise FaroutError(f"score {name} needs the labels of its training images: fit it on a labelled data set")
    return train.labels.to(train.features.device)


def fitted(value: T | None, name: str) -> T:
    """What `fit` estimated; raises FaroutError before it has."""
    if value is None:
        raise FaroutError(f"score {name} is not fitted: call its fit before it scores images")
    return value
