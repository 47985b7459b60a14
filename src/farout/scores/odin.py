"""ODIN (Liang, Li and Srikant, ICLR 2018), as wetliu/energy_ood runs it for the Energy paper."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from farout.errors import ConfigError
from farout.scores.base import ImageScore, Network, Outputs
from farout.scores.input_noise import input_gradient, signed_step

# The grid of wetliu/energy_ood, chosen from on the validation corruptions; the values it chose are not published.
TEMPERATURES = (1000.0, 100.0, 10.0, 1.0)
EPSILONS = (0.0, 0.0004, 0.0008, 0.0014, 0.002, 0.0024, 0.0028, 0.0032, 0.0038, 0.0048)


class ODIN(ImageScore):
    """max_k softmax(f(x~) / T)_k with x~ = x - epsilon * sgn(grad_x CE(f(x) / T, argmax f(x))) / std, sgn(0) = +1.

    The step makes the predicted class likelier, more so for ID images; std undoes the normalisation, so epsilon is
    in units of pixels over [0, 1]. The paper has T = 1000 throughout and an epsilon per network, chosen on iSUN: 0.0014
    for DenseNet on CIFAR-10, which is the default here, and 0.002 on CIFAR-100 (its README has others, one per OOD
    set). With epsilon = 0 no image is needed.

    Args:
        temperature: T.
        epsilon: size of the step.
        tune: choose T and epsilon from the Energy code's grid, on validation corruptions.
    """

    def __init__(self, temperature: float = 1000.0, epsilon: float = 0.0014, tune: bool = False) -> None:
        if temperature <= 0:
            raise ConfigError(f"temperature={temperature}: ODIN needs a temperature above 0")
        if epsilon < 0:
            raise ConfigError(f"epsilon={epsilon}: ODIN's step must not be negative")
        self.temperature, self.epsilon, self.tune = temperature, epsilon, tune
        plain = tune or (temperature, epsilon) == (1000, 0.0014)
        self.name = "odin" if plain else f"odin_t{temperature:g}_e{epsilon:g}"
        self.needs = ("images",) if tune or epsilon > 0 else ()

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) float64, where epsilon is 0."""
        return self._confidence(outputs.logits) if self.epsilon == 0 else super().__call__(outputs)

    def on_images(self, network: Network, images: Tensor, std: Tensor) -> Tensor:
        """(B,) float64 in [1/C, 1]: at T = 1000 all lie near 1/C, where float32 would blur them."""
        if self.epsilon > 0:
            gradient = input_gradient(lambda leaf: self._loss(network.classify(network.features(leaf))), images)
            images = signed_step(images, gradient, self.epsilon, std)
        with torch.no_grad():
            return self._confidence(network.classify(network.features(images)))

    def _loss(self, logits: Tensor) -> Tensor:
        # Summed, not averaged: only the gradient's sign counts, and it must not depend on the batch by underflow.
        return F.cross_entropy(logits / self.temperature, logits.argmax(1), reduction="sum")

    def _confidence(self, logits: Tensor) -> Tensor:
        exact = logits.cpu() if logits.device.type == "mps" else logits  # Apple's GPUs have no float64
        return (exact.double() / self.temperature).softmax(1).amax(1)

    def candidates(self) -> "Sequence[ODIN]":
        """The Energy code's grid, 4 temperatures x 10 steps, where `tune` is set."""
        grid = [ODIN(t, epsilon) for t in TEMPERATURES for epsilon in EPSILONS] if self.tune else []
        for candidate in grid:
            candidate.name = self.name
        return grid

    def facts(self) -> dict[str, Any]:
        """T and epsilon."""
        return {"temperature": self.temperature, "epsilon": self.epsilon}
