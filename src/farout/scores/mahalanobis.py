"""Mahalanobis distance (Lee et al., NeurIPS 2018), in the one-layer variant of wetliu/energy_ood."""

from collections.abc import Sequence
from copy import copy
from typing import Any, Literal

import torch
from torch import Tensor

from farout.errors import ConfigError
from farout.scores.base import Fitting, ImageScore, Network, Outputs
from farout.scores.blocks import in_blocks
from farout.scores.fitted import fitted, train_labels, train_outputs
from farout.scores.gaussians import Gaussians, estimate
from farout.scores.input_noise import input_gradient, signed_step

# The grid of wetliu/energy_ood, chosen from on the validation corruptions; the value it chose is not published.
EPSILONS = (0.0, 0.01, 0.005, 0.002, 0.0014, 0.001, 0.0005)


class Mahalanobis(ImageScore):
    """-min_c 1/2 (h(x~) - mu_c)^T P (h(x~) - mu_c), x~ = x - epsilon * sgn(grad_x of it at the closest class) / std.

    h are the penultimate features, as they are; mu_c their class means over the training images, P the
    pseudo-inverse of one covariance of the deviations from them, divisor n; both in float64. The closest class of
    the gradient is the one before the step; the score's is the one after it. Lee et al. also combine several layers
    by a regression on OOD images; the Energy code does not. With epsilon = 0 no image is needed.

    Args:
        epsilon: size of the step, in pixels of [0, 1].
        tune: choose epsilon from the Energy code's grid, on validation corruptions.
    """

    plain_name = "mahalanobis"
    covariance: Literal["tied", "total"] = "tied"

    def __init__(self, epsilon: float = 0.0, tune: bool = False) -> None:
        if epsilon < 0:
            raise ConfigError(f"epsilon={epsilon}: the step of Mahalanobis must not be negative")
        self.tune = tune
        self._take(epsilon)
        self.name = self.plain_name if tune or epsilon == 0 else f"{self.plain_name}_e{epsilon:g}"
        self._gaussians: Gaussians | None = None

    def _take(self, epsilon: float) -> None:
        self.epsilon = epsilon
        self.needs = ("train", "images") if self.tune or epsilon > 0 else ("train",)

    def embed(self, features: Tensor) -> Tensor:
        """(B, D) float64: what the distance is measured in."""
        return features.double()

    def fit(self, fitting: Fitting) -> None:
        """Class means and precision; raises FaroutError without labelled training outputs."""
        train = train_outputs(fitting, self.name)
        self._gaussians = estimate(train.features, train_labels(train, self.name), self.embed, self.covariance)

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) float64, at most 0, where epsilon is 0."""
        if self.epsilon > 0:
            return super().__call__(outputs)
        gaussians = fitted(self._gaussians, self.name).to(outputs.features.device)
        numbers = 3 * outputs.features.shape[1] + 2 * len(gaussians.means)
        return in_blocks(lambda block: self._score(gaussians, block), outputs.features, numbers)

    def on_images(self, network: Network, images: Tensor, std: Tensor) -> Tensor:
        """(B,) float64, at most 0."""
        gaussians = fitted(self._gaussians, self.name).to(images.device)
        if self.epsilon > 0:
            # Summed, where the official code averages: only the sign counts.
            gradient = input_gradient(
                lambda leaf: gaussians.half_distance_to_closest(self.embed(network.features(leaf))).sum(), images
            )
            images = signed_step(images, gradient, self.epsilon, std)
        with torch.no_grad():
            return self._score(gaussians, network.features(images))

    def _score(self, gaussians: Gaussians, features: Tensor) -> Tensor:
        return -gaussians.half_distances(self.embed(features)).amin(1)

    def candidates(self) -> "Sequence[Mahalanobis]":
        """The Energy code's grid, 7 steps, where `tune` is set."""
        return [self._candidate(epsilon) for epsilon in EPSILONS] if self.tune else []

    def _candidate(self, epsilon: float) -> "Mahalanobis":
        candidate = copy(self)
        candidate.tune = False
        candidate._take(epsilon)
        return candidate

    def facts(self) -> dict[str, Any]:
        """Epsilon and, once fitted, the number of classes and the precision's rank."""
        if self._gaussians is None:
            return {"epsilon": self.epsilon}
        classes, rank = len(self._gaussians.means), self._gaussians.factor.shape[1]
        return {"epsilon": self.epsilon, "classes": classes, "rank": rank}
