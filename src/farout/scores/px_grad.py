"""Approximate mass (Grathwohl et al., ICLR 2020): how flat log p(x) is around an image."""

import torch
from torch import Tensor

from farout.scores.base import ImageScore, Network
from farout.scores.input_noise import input_gradient


class PxGrad(ImageScore):
    """-||grad_x log p(x)||_2 with log p(x) = logsumexp f(x) up to a constant.

    A point can be likely and yet lie outside of the typical set, where the density falls off steeply. The gradient
    is by the network's input, that is in units of the normalised image, as in wgrathwohl/JEM.
    """

    name = "px_grad"

    def on_images(self, network: Network, images: Tensor, std: Tensor) -> Tensor:
        """(B,), at most 0."""
        gradient = input_gradient(lambda leaf: _log_p(network, leaf).sum(), images)
        return -torch.linalg.vector_norm(gradient.flatten(1), dim=1)


def _log_p(network: Network, images: Tensor) -> Tensor:
    """(B,), less a constant."""
    return network.classify(network.features(images)).logsumexp(1)
