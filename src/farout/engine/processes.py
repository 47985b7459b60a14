"""The processes that train one run together, one for each device: a leader, and others that follow its orders.

The leader is the process of the command. It alone reads the clock, hears signals, writes files and speaks; the others
hold the same networks, do their share of every update and of every evaluation, and own nothing that a kill could lose.
What is computed is what one device computes at the same batch size, see `farout.engine.global_batch`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

BatchNorm = Literal["global", "local"]

# How long one process waits for another before it gives up: the leader may evaluate a long time between two orders.
PATIENCE = timedelta(hours=12)


class Order(Enum):
    """What the leader has its followers do next in `fit`."""

    STEP = 0
    STATE = 1  # take the leader's state
    END = 2


@dataclass(frozen=True)
class Processes:
    """This process among the others.

    Attributes:
        rank: 0 leads.
        size: how many there are; with one, nothing here does anything.
        batch_norm: statistics of the whole batch, or of each process's own part of it.
    """

    rank: int = 0
    size: int = 1
    batch_norm: BatchNorm = "global"

    @property
    def several(self) -> bool:
        return self.size > 1

    @property
    def rows(self) -> slice:
        """This process's part of a batch."""
        return self.rows_of(self.rank)

    def rows_of(self, rank: int) -> slice:
        """A process's part of a batch: every `size`-th image, so that all have as many, or one more."""
        return slice(rank, None, self.size)

    def tell(self, order: Order) -> None:
        """The leader's next order."""
        if self.several:
            dist.broadcast(torch.tensor(order.value), 0)

    def told(self) -> Order:
        """A follower's next order."""
        order = torch.tensor(0)
        dist.broadcast(order, 0)
        return Order(int(order))

    def send(self, thing: Any) -> None:
        """Anything that pickles, from the leader to all."""
        if self.several:
            dist.broadcast_object_list([thing], 0)

    def receive(self) -> Any:
        """What the leader sends."""
        things = [None]
        dist.broadcast_object_list(things, 0)
        return things[0]

    def average(self, model: nn.Module, parameters: Iterable[Tensor]) -> None:
        """Average the gradients over all processes, and batch norm's running statistics where each has its own.

        Each is a multiple of its part (`farout.engine.global_batch`), so that the mean is the whole batch's gradient.
        """
        if not self.several:
            return
        tensors = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.batch_norm == "local":
            tensors += [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # in the same order everywhere
            self._average([tensor for tensor in tensors if tensor.dtype == dtype])

    def _average(self, tensors: list[Tensor]) -> None:
        """Of all tensors in one transfer."""
        joined = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        dist.all_reduce(joined)
        joined /= self.size
        for tensor, part in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def whole(self, part: Tensor, rows: int) -> Tensor:
        """All rows (rows, ...) of a batch, of which every process gives its share."""
        if not self.several:
            return part
        return self._gathered(part, -(-rows // self.size)).transpose(0, 1).flatten(0, 1)[:rows]

    def _gathered(self, part: Tensor, most: int) -> Tensor:
        """Every process's part (up to `most`, ...), filled up to (size, most, ...)."""
        padded = part.new_zeros(most, *part.shape[1:])
        padded[: len(part)] = part
        parts = part.new_empty(self.size, *padded.shape)
        dist.all_gather_into_tensor(parts.flatten(0, 1), padded)
        return parts

    def send_images(self, images: Tensor | None, batch_size: int) -> None:
        """Images (B, C, H, W) for `in_turn`, from the leader to all; None: there are no more."""
        if not self.several:
            return
        shape = (0, 0, 0, 0) if images is None else images.shape
        dist.broadcast(torch.tensor([batch_size, *shape]), 0)
        if images is not None:
            dist.broadcast(images.contiguous(), 0)

    def receive_images(self, device: torch.device) -> tuple[Tensor, int] | None:
        """What `send_images` sends."""
        header = torch.zeros(5, dtype=torch.int64)
        dist.broadcast(header, 0)
        batch_size, *shape = header.tolist()
        if not shape[0]:
            return None
        images = torch.empty(shape, device=device)
        dist.broadcast(images, 0)
        return images, batch_size

    def in_turn(self, features_of: Callable[[Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
        """Features (B, D) of images, as many batches as processes: each computes one, and all get all."""
        if not self.several:
            return features_of(images)
        parts = images.split(batch_size)
        own = parts[self.rank] if self.rank < len(parts) else images[:0]
        return self._gathered(features_of(own), batch_size).flatten(0, 1)[: len(images)]


ALONE = Processes()
