"""The small step on the image that ODIN and Mahalanobis take before they score it."""

from collections.abc import Callable

import torch
from torch import Tensor


def input_gradient(objective: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Gradient of a scalar `objective` of the images (B, 3, H, W), wherever gradients may be switched off outside."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.clone().detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(leaf), leaf)
    return gradient


def signed_step(images: Tensor, gradient: Tensor, epsilon: float, std: Tensor) -> Tensor:
    """x - epsilon * sgn(gradient) / std with sgn(0) = +1, as the official codes have it.

    `std` (3,) is the normalisation's, so that epsilon is in units of pixels over [0, 1].
    """
    step = (epsilon / std.to(images)).view(1, -1, 1, 1)
    return images - torch.where(gradient >= 0, step, -step)
