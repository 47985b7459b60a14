"""The small step on the image that ODIN and Mahalanobis take before they score it."""

from collections.abc import Callable

import torch
from torch import Tensor

from farout.errors import FaroutError


def input_gradient(objective: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Gradient of a scalar `objective` of the images (B, C, H, W), wherever gradients may be switched off outside.

    Raises FaroutError where the objective does not depend on them by anything that has a gradient.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.clone().detach().requires_grad_()
        value = objective(leaf)
        if not value.requires_grad:
            raise FaroutError("the network has no gradient by its input, which this score needs: it is cut on the way")
        (gradient,) = torch.autograd.grad(value, leaf)
    return gradient


def signed_step(images: Tensor, gradient: Tensor, epsilon: float, std: Tensor) -> Tensor:
    """x - epsilon * sgn(gradient) / std with sgn(0) = +1, as the official codes have it.

    `std` (C,) or (1,) is the normalisation's, so that epsilon is in units of pixels over [0, 1].

    Raises FaroutError where the images (B, C, H, W) have another number of channels.
    """
    if len(std) not in (1, images.shape[1]):
        raise FaroutError(
            f"Normalize has {len(std)} channels and the network's input {images.shape[1]}: give it as many"
        )
    step = (epsilon / std.to(images)).view(1, -1, 1, 1)
    return images - torch.where(gradient >= 0, step, -step)
