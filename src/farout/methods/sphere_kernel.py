# mypy: allow-untyped-defs, allow-untyped-decorators
"""The recursion of prototypes as two Triton kernels: one program a class walks along its samples.

On a GPU the loop of `farout.methods.sphere` launches some four small kernels a rank, and its number of ranks depends on
the labels, which a CUDA graph cannot follow. Here every shape is fixed and nothing waits for the labels. Same formulas,
same order of additions but within a dot product.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

TINY = tl.constexpr(1e-12)  # a shorter vector has no direction
OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}


@triton.jit
def _forward(prototypes, features, samples, starts, chain, lengths, updated, momentum, width, block: tl.constexpr):
    label = tl.program_id(0)
    column = tl.arange(0, block)
    inside = column < width
    point = tl.load(prototypes + label * width + column, mask=inside, other=0.0)
    for place in range(tl.load(starts + label), tl.load(starts + label + 1)):
        sample = tl.load(features + tl.load(samples + place) * width + column, mask=inside, other=0.0)
        point = sample * (1 - momentum) + point * momentum
        length = tl.maximum(tl.sqrt(tl.sum(point * point, axis=0)), TINY)
        point = point / length
        tl.store(chain + place * width + column, point, mask=inside)
        tl.store(lengths + place, length)
    tl.store(updated + label * width + column, point, mask=inside)


@triton.jit
def _backward(
    gradient, chain, lengths, samples, starts, to_prototypes, to_features, momentum, width, block: tl.constexpr
):
    label = tl.program_id(0)
    column = tl.arange(0, block)
    inside = column < width
    later = tl.load(gradient + label * width + column, mask=inside, other=0.0)
    first = tl.load(starts + label)
    end = tl.load(starts + label + 1)
    for back in range(end - first):
        place = end - 1 - back
        point = tl.load(chain + place * width + column, mask=inside, other=0.0)
        length = tl.load(lengths + place)
        inverse = tl.where(length > TINY, 1 / length, 0.0)
        pulled = (later - point * tl.sum(point * later, axis=0)) * inverse
        tl.store(to_features + tl.load(samples + place) * width + column, pulled * (1 - momentum), mask=inside)
        later = pulled * momentum
    tl.store(to_prototypes + label * width + column, later, mask=inside)


class SphereKernel(torch.autograd.Function):
    """u_k = normalise(m u_(k-1) + (1 - m) z_k) along the samples of each class, see `SphereRecursion`."""

    @staticmethod
    def forward(ctx: FunctionCtx, prototypes: Tensor, features: Tensor, momentum: float, labels: Tensor) -> Tensor:
        """Prototypes (C, D) after features (B, D) with labels (B,) on the same device; float32."""
        classes, width = prototypes.shape
        prototypes, features = prototypes.contiguous(), features.contiguous()
        ordered, samples = labels.sort(stable=True)
        starts = torch.searchsorted(ordered, torch.arange(classes + 1, device=labels.device))
        chain, updated = torch.empty_like(features), torch.empty_like(prototypes)
        lengths = features.new_empty(len(features))
        block = triton.next_power_of_2(width)
        _forward[(classes,)](
            prototypes, features, samples, starts, chain, lengths, updated, momentum, width, block, **OPTIONS
        )
        ctx.save_for_backward(chain, lengths, samples, starts)
        ctx.momentum = momentum  # type: ignore[attr-defined]
        return updated

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        chain, lengths, samples, starts = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient = gradient.contiguous()
        to_prototypes, to_features = torch.empty_like(gradient), torch.empty_like(chain)
        classes, width = gradient.shape
        _backward[(classes,)](
            gradient,
            chain,
            lengths,
            samples,
            starts,
            to_prototypes,
            to_features,
            ctx.momentum,  # type: ignore[attr-defined]
            width,
            triton.next_power_of_2(width),
            **OPTIONS,
        )
        return to_prototypes, to_features, None, None
