"""One batch on several devices, with the mathematics of one device.

Each process runs the trunk, which is nearly all of the work, on its share of the images. The features of all images are
then gathered everywhere, and from there on (heads, losses, prototypes, replay buffers) every process computes the same
for the whole batch, so no method knows how many there are.

Gradients. With N processes, each has the whole loss L, and hence the true gradient at the gathered features. The
backward of the gathering hands N times its own rows' part to the process's trunk: its parameters then have N times this
share's part of the gradient, and those behind the gathering have the whole gradient; the mean over the processes is
the gradient of L for both. Where images themselves want a gradient (Langevin chains), the parts are gathered, over N.

What looks at a whole batch within the trunk sees the whole one: batch norm, by statistics of all processes, and
dropout, whose mask is drawn for all images and cut.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from farout.backbones import Backbone
from farout.backbones.base import Trunk
from farout.engine.processes import Processes

BATCH_NORM = signature(F.batch_norm)
DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)


@contextmanager
def spread_over(processes: Processes, model: nn.Module) -> Iterator[None]:
    """Inside, every process runs a backbone's trunk on its share of a batch and has the features of all of it.

    Of any other network each process runs all: the same, though no faster.
    """
    if not processes.several or not isinstance(model, Backbone):
        yield
        return
    model.spread = partial(_features_of_all, processes)
    try:
        yield
    finally:
        model.spread = None


def _features_of_all(processes: Processes, trunk: Trunk, images: Tensor) -> Tensor:
    """Features (B, D) of images (B, ...), the trunk run on this process's share of them."""
    own = _Share.apply(images, processes)
    with _WholeBatch(processes, len(images)):
        features = trunk(own)
    return cast(Tensor, _Gather.apply(features, len(images), processes))


class _Share(torch.autograd.Function):
    """Images (B, ...) -> this process's rows; backward -> the gradient of all rows."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, processes: Processes) -> Tensor:
        ctx.processes, ctx.rows = processes, len(images)
        return images[processes.rows].contiguous(memory_format=_layout(images))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.processes.whole(gradient, ctx.rows) / ctx.processes.size, None


class _Gather(torch.autograd.Function):
    """This process's features -> those of all rows; backward -> N times the gradient of its own rows."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, rows: int, processes: Processes) -> Tensor:
        ctx.processes = processes
        return processes.whole(features, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.processes.rows] * ctx.processes.size, None, None


class _WholeBatch(TorchFunctionMode):
    """Inside, batch norm and dropout of this process's rows are those of a batch of `rows` images."""

    def __init__(self, processes: Processes, rows: int) -> None:
        super().__init__()
        self.processes, self.rows = processes, rows

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(named or {})
        if function is F.batch_norm and self.processes.batch_norm == "global":
            return self._batch_norm(*arguments, **named)
        if function in DROPOUTS:
            return self._dropout(function, *arguments, **named)
        return function(*arguments, **named)

    def _dropout(
        self, function: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return x
        everywhere = torch.ones((self.rows, *x.shape[1:]), dtype=x.dtype, device=x.device)
        everywhere = everywhere.contiguous(memory_format=_layout(x))
        return x * function(everywhere, p, True)[self.processes.rows]

    def _batch_norm(self, *arguments: Any, **named: Any) -> Tensor:
        """F.batch_norm of (b, C, ...) by the statistics of all rows, which also go into the running ones."""
        asked = BATCH_NORM.bind(*arguments, **named)
        asked.apply_defaults()
        known = SimpleNamespace(**asked.arguments)
        if not known.training:
            return F.batch_norm(*arguments, **named)
        x: Tensor = known.input
        normalised, mean, variance = _BatchNorm.apply(x, known.weight, known.bias, known.eps, self.rows, self.processes)
        if known.running_mean is not None:
            n = self.rows * x.shape[2:].numel()
            known.running_mean.lerp_(mean.to(known.running_mean.dtype), known.momentum)
            known.running_var.lerp_((variance * (n / (n - 1))).to(known.running_var.dtype), known.momentum)
        return cast(Tensor, normalised)


class _BatchNorm(torch.autograd.Function):
    """x (b, C, ...) of a batch of `rows` -> normalised by the statistics of all of it; and these, (C,) each, biased.

    Statistics in float32 or better, as torch has them. One transfer forward, one backward.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, rows: int, processes: Processes
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, variance = _statistics(wide, rows, processes)
        scale = (variance + eps).rsqrt()
        standard = (wide - _on_channels(mean, x)) * _on_channels(scale, x)
        ctx.save_for_backward(standard, scale, weight)
        ctx.n, ctx.has_bias = rows * x.shape[2:].numel(), bias is not None
        ctx.mark_non_differentiable(mean, variance)
        if weight is not None:
            standard = standard * _on_channels(weight, x)
        if bias is not None:
            standard = standard + _on_channels(bias, x)
        return standard.to(x.dtype), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        standard, scale, weight = ctx.saved_tensors
        wide, over = gradient.to(standard.dtype), _all_but_channels(gradient)
        own = torch.stack([wide.sum(over), (wide * standard).sum(over)])
        sums = own.clone()
        dist.all_reduce(sums)
        along, across = (_on_channels(part, gradient) / ctx.n for part in sums)
        scale = scale if weight is None else scale * weight
        by_x = (wide - along - standard * across) * _on_channels(scale, gradient)
        by_weight = None if weight is None else own[1]
        by_bias = own[0] if ctx.has_bias else None
        return by_x.to(gradient.dtype), by_weight, by_bias, None, None, None


def _statistics(x: Tensor, rows: int, processes: Processes) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) over all processes' x, joined as Chan, Golub and LeVeque (1979) join them."""
    over, pixels = _all_but_channels(x), x.shape[2:].numel()
    own = max(1, len(x) * pixels)  # a process without any image adds nothing
    mean = x.sum(over) / own
    squares = (x - _on_channels(mean, x)).square().sum(over)
    parts = x.new_empty(processes.size, 2, len(mean))
    dist.all_gather_into_tensor(parts.flatten(0, 1), torch.stack([mean, squares]))
    counts = [pixels * len(range(rows)[processes.rows_of(rank)]) for rank in range(processes.size)]
    weights = x.new_tensor(counts)[:, None] / (rows * pixels)
    mean = (weights * parts[:, 0]).sum(0)
    variance = parts[:, 1].sum(0) / (rows * pixels) + (weights * (parts[:, 0] - mean).square()).sum(0)
    return mean, variance


def _all_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _on_channels(values: Tensor, x: Tensor) -> Tensor:
    """(C,) laid along the channels of x (B, C, ...)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


def _layout(x: Tensor) -> torch.memory_format:
    flat = x.ndim != 4 or x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last)
    return torch.contiguous_format if flat else torch.channels_last
