"""Embeddings on the unit sphere, and prototypes that follow them sample by sample (CIDER, Ming et al., ICLR 2023).

The recursion of a prototype normalises after every sample, so its steps neither commute nor compose into anything
smaller than themselves: within a class it stays a chain. Classes do not touch each other, however, so all first samples
of the batch advance together, then all second ones, and so on: as many steps as the busiest class has samples, each
over a contiguous block of rows. Forward and backward are written out, four small operations a step.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from farout.errors import ConfigError, FaroutError

TINY = 1e-12  # a shorter vector has no direction (the bound of torch's own normalize)


def embed(model: nn.Module, images: Tensor) -> Tensor:
    """Unit embeddings (B, D) of images (B, C, H, W), in float32 or better.

    Raises:
        ConfigError: the network has no projection head.
    """
    project = getattr(model, "embed", None)
    if project is None:
        raise ConfigError("this method needs a network with a projection head: choose backbone=resnet18_cider")
    return at_least_float32(project(images))


def at_least_float32(values: Tensor) -> Tensor:
    """bfloat16 and float16 as float32, anything else as it is."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def has_direction(prototypes: Tensor) -> Tensor:
    """(C,) True where a row of (C, D) is finite and not the zero vector, which stands for "no prototype yet"."""
    return prototypes.isfinite().all(dim=1) & (prototypes != 0).any(dim=1)


def class_sums(embeddings: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Sums of embeddings (B, D) by label, (C, D).

    A product with the one-hot labels, because scattered additions have no fixed order on a GPU and would make a
    resumed run differ.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        classes = torch.arange(num_classes, device=labels.device)
        return (classes[:, None] == labels).to(embeddings.dtype) @ embeddings


class HostLabels:
    """A copy of a batch's labels on the host that nothing waits for.

    Made before the forward pass is launched and read after, so the host waits at most for the copy, while the device
    has the whole forward pass to do: it is never drained, and its queue never runs empty. Labels that are on the host
    already are used as they are.
    """

    def __init__(self, labels: Tensor) -> None:
        self._copy = labels.detach().to("cpu", non_blocking=True)  # from a GPU into pinned memory
        self._done = torch.cuda.Event() if labels.is_cuda else None
        if self._done is not None:
            self._done.record(torch.cuda.current_stream(labels.device))

    def read(self) -> Tensor:
        """The labels (B,) on the host."""
        if self._done is not None:
            self._done.synchronize()
        return self._copy


@dataclass(frozen=True)
class RankOrder:
    """A batch packed by occurrence rank: every class's first sample, then every class's second, and so on.

    Classes stand by falling number of samples, so those that still have an r-th sample are the first `sizes[r]`, and
    every rank is one contiguous block of the packed rows.

    Args:
        samples: the batch's rows in packed order, (B,).
        classes: all classes by falling number of samples, (C,).
        last: packed row of the last sample of each class that has any, in the order of `classes`, (P,).
        sizes: number of classes with a first, second, ... sample; sums to B.
    """

    samples: Tensor
    classes: Tensor
    last: Tensor
    sizes: list[int]

    @property
    def present(self) -> Tensor:
        """The classes that have a sample, (P,)."""
        return self.classes[: len(self.last)]


def rank_order(labels: Tensor, num_classes: int, device: torch.device) -> RankOrder:
    """Pack labels (B,); index arithmetic on the host, the indices then copied to `device` without waiting.

    Raises:
        FaroutError: a label is not one of the classes.
    """
    given = labels.detach().cpu().numpy()
    if given.size and not (given.min() >= 0 and given.max() < num_classes):
        raise FaroutError(
            f"labels from {given.min()} to {given.max()} do not fit {num_classes} prototypes: "
            "check the data set's number of classes"
        )
    counts = np.bincount(given, minlength=num_classes)
    classes = np.argsort(-counts, kind="stable")
    place = np.empty_like(classes)
    place[classes] = np.arange(num_classes)
    by_class = np.argsort(given, kind="stable")
    ranks = np.arange(len(given)) - np.repeat(np.cumsum(counts) - counts, counts)
    sizes = np.bincount(ranks)
    offsets = np.cumsum(sizes) - sizes
    samples = np.empty_like(by_class)
    samples[offsets[ranks] + np.repeat(place, counts)] = by_class
    present = np.count_nonzero(counts)
    last = offsets[counts[classes[:present]] - 1] + np.arange(present)
    return RankOrder(_sent(samples, device), _sent(classes, device), _sent(last, device), sizes.tolist())


def _sent(index: np.ndarray, device: torch.device) -> Tensor:
    """An index array on the device; pinned memory lets a GPU fetch it without making the host wait."""
    tensor = torch.from_numpy(index.astype(np.int64, copy=False))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class SphereRecursion(torch.autograd.Function):
    """u_k = normalise(m u_(k-1) + (1 - m) z_k) along the samples z_k of each class, from u_0 = its prototype.

    Backward, from the last sample to the first: with s_k the length that the step divided by and g the gradient at
    u_k, the gradient before the division is (g - u_k (u_k . g)) / s_k; (1 - m) of it belongs to z_k and m to u_(k-1).
    Where s_k is zero there is no direction to turn, and the gradient is defined as zero.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, prototypes: Tensor, features: Tensor, momentum: float, order: RankOrder) -> Tensor:
        chain = features[order.samples].mul_(1 - momentum)
        lengths = chain.new_empty(len(chain), 1)
        before = prototypes[order.classes]
        for step, length in zip(chain.split(order.sizes), lengths.split(order.sizes), strict=True):
            step.add_(before if len(before) == len(step) else before[: len(step)], alpha=momentum)
            torch.linalg.vector_norm(step, dim=1, keepdim=True, out=length)
            step.div_(length.clamp_min_(TINY))
            before = step
        ctx.save_for_backward(chain, lengths)
        ctx.momentum, ctx.order = momentum, order  # type: ignore[attr-defined]
        return prototypes.index_copy(0, order.present, chain[order.last])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        chain, lengths = ctx.saved_tensors  # type: ignore[attr-defined]
        momentum, order = ctx.momentum, ctx.order  # type: ignore[attr-defined]
        pulled = _pull_back(chain, lengths, gradient[order.classes], momentum, order)
        first = pulled[: len(order.last)] * momentum  # rank 0 holds one row of every class that is present
        to_prototypes = gradient.index_copy(0, order.present, first)
        to_features = torch.empty_like(pulled).index_copy_(0, order.samples, pulled.mul_(1 - momentum))
        return to_prototypes, to_features, None, None


def _pull_back(chain: Tensor, lengths: Tensor, gradient: Tensor, momentum: float, order: RankOrder) -> Tensor:
    """Gradients (B, D) before each division, in packed order; `gradient` (C, D) in the order of `order.classes`."""
    inverse = torch.where(lengths > TINY, 1 / lengths, 0)
    scale = (inverse * momentum).index_copy_(0, order.last, inverse[order.last])  # a last sample gets all of it
    pulled = torch.empty_like(chain)
    blocks = [tensor.split(order.sizes) for tensor in (chain, scale, pulled)]
    later = gradient[:0]
    for states, factor, out in zip(*map(reversed, blocks), strict=True):
        if len(later) < len(out):  # classes whose last sample this is
            later = torch.cat([later, gradient[len(later) : len(out)]])
        along = (states * later).sum(dim=1, keepdim=True)
        torch.addcmul(later, states, along, value=-1, out=out).mul_(factor)
        later = out
    return pulled


def advance(prototypes: Tensor, features: Tensor, momentum: float, order: RankOrder) -> Tensor:
    """Prototypes (C, D) after the batch: differentiable once, in float32 or better whatever the inputs have."""
    precise = torch.promote_types(torch.promote_types(prototypes.dtype, features.dtype), torch.float32)
    known = torch.where(prototypes.isfinite().all(dim=1, keepdim=True), prototypes, 0).to(precise)
    updated: Tensor = SphereRecursion.apply(known, features.to(precise), momentum, order)
    return updated


def advance_on_device(prototypes: Tensor, features: Tensor, momentum: float, labels: Tensor) -> Tensor:
    """`advance` with labels (B,) that stay on the device: nothing waits for them, and every shape is fixed."""
    from farout.methods.sphere_kernel import SphereKernel  # Triton is not everywhere

    known = torch.where(prototypes.isfinite().all(dim=1, keepdim=True), prototypes, 0).float()
    updated: Tensor = SphereKernel.apply(known, features.float(), momentum, labels)
    return updated


def unit_rows(vectors: Tensor) -> Tensor:
    """Rows of (C, D) at length 1, in float32 or better; rows without a direction as zeros."""
    precise = at_least_float32(vectors)
    return F.normalize(torch.where(has_direction(precise)[:, None], precise, 0), dim=1)
