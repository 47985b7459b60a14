"""What a training method is: a batch becomes a loss."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass
class Batch:
    """Images on the device, augmented and normalised (B, C, H, W), with labels (B,) where the stream has them."""

    images: Tensor
    labels: Tensor | None = None

    @property
    def targets(self) -> Tensor:
        """The labels of a stream that must have them."""
        if self.labels is None:
            raise ValueError("this batch has no labels")
        return self.labels


class Method(nn.Module):
    """One training objective.

    `streams` names the batch streams that `loss` wants: "labelled", "outliers", "unlabelled" (the labelled
    images in an order of their own). Constructor arguments are the method's knobs: the command line knows them by
    these names, and their annotations are their types. Parameters of a method are optimised beside the network's,
    buffers are saved with every checkpoint, so resume is exact. Both are kept beside the finished weights.

    `drop_last` is True where an epoch's last, short batch shall be left out.

    `full_precision` is True where trainer.precision=auto means fp32 on every device.

    `trains_classifier` is False where the loss never reaches the network's last linear layer: its logits are then
    noise, and nobody may report an accuracy of them. `embeds` is True where the loss sees `model.embed`, the unit
    vectors of a projection head.

    `admits_batch_norm` is False where the loss needs an image's output to depend on that image alone.

    `later` names knobs that came after runs had been recorded, with the value that changes nothing, which is also
    their default: a run that has it keeps the fingerprint of before.
    """

    streams: ClassVar[tuple[str, ...]] = ("labelled",)
    drop_last: ClassVar[bool] = False
    full_precision: ClassVar[bool] = False
    trains_classifier: ClassVar[bool] = True
    embeds: ClassVar[bool] = False
    admits_batch_norm: ClassVar[bool] = True
    later: ClassVar[Mapping[str, object]] = {}

    def __init__(self) -> None:  # no knobs; nn.Module's own signature would admit anything
        super().__init__()

    def prepare(self, model: nn.Module, batches: Mapping[str, Batch], train_images: Iterable[Batch] = ()) -> None:
        """Called once before the first step (not on resume), with the first step's batches.

        `train_images` gives every labelled training image once, as at test time, for whoever iterates over it.
        """

    def restarted(self, times: int) -> None:
        """Called when training goes on from a checkpoint after diverging for the `times`-th time, and on resume."""

    def loss(self, model: nn.Module, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """Scalars by name; "total" is the one that is minimised, the others are its logged parts."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def log_scalars(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Scalars to log beside the losses, by name, each (); nothing may be drawn from torch's global generator."""
        return {}

    def log_images(self) -> Mapping[str, Tensor]:
        """Images (N, 3, H, W) to log, by name, in the network's units; copies, and nothing drawn either."""
        return {}


def joint_logits(model: nn.Module, labelled: Batch, outliers: Batch) -> tuple[Tensor, Tensor]:
    """Logits of ID images (B, C) and outliers (M, C) from ONE forward pass, ID first.

    Both papers concatenate: batch-norm statistics are those of ID and outliers together. Separate passes train
    another, clearly worse network.
    """
    logits = model(torch.cat([labelled.images, outliers.images]))
    n = len(labelled.images)
    return logits[:n], logits[n:]
