"""CIDER: compact classes, dispersed prototypes on a sphere (Ming et al., ICLR 2023, equations 4 to 7)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farout.errors import ConfigError, FaroutError
from farout.kernels import runs_triton
from farout.methods.base import Batch, Method
from farout.methods.sphere import (
    HostLabels,
    advance,
    advance_on_device,
    at_least_float32,
    class_sums,
    embed,
    has_direction,
    rank_order,
    unit_rows,
)

Terms = Literal["both", "compactness", "dispersion"]
PrototypeRule = Literal["ema", "batch_mean", "learnable"]


def update_prototypes(prototypes: Tensor, features: Tensor, labels: Tensor, momentum: float) -> Tensor:
    """Prototypes (C, D) after a batch of unit features (B, D) with labels (B,); the given ones stay as they are.

    Sample by sample in batch order, mu_y <- normalise(momentum mu_y + (1 - momentum) z) (equation 7 as the official
    code applies it), with gradients to every sample and to the prototypes given; computed by occurrence rank, see
    `farout.methods.sphere`. At least float32, autocast or not; a second derivative is not provided.

    A class absent from the batch keeps its prototype. A prototype that is zero or not finite counts as not there yet:
    the class's first sample becomes it.

    Labels belong on the host: the number of steps depends on them. Labels on a GPU are copied over, which waits for
    the device; `CIDER` starts that copy before the forward pass and so never waits for work.

    Raises:
        FaroutError: shapes do not fit, a label is not one of the C classes, or momentum lies outside [0, 1].
    """
    if prototypes.ndim != 2 or features.ndim != 2 or prototypes.shape[1] != features.shape[1]:
        raise FaroutError(
            f"prototypes {tuple(prototypes.shape)} and features {tuple(features.shape)} must be (C, D) and (B, D)"
        )
    if labels.shape != features.shape[:1]:
        raise FaroutError(f"{len(features)} features need as many labels, not labels of shape {tuple(labels.shape)}")
    if not 0 <= momentum <= 1:
        raise FaroutError(f"momentum={momentum:g} must lie in [0, 1]: it weighs the old prototype")
    return advance(prototypes, features, momentum, rank_order(labels, len(prototypes), features.device))


def batch_mean_prototypes(prototypes: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """Unit class means (C, D) of the batch alone; a class without a sample keeps its prototype, as a constant."""
    means = unit_rows(class_sums(at_least_float32(features), labels, len(prototypes)))
    return torch.where(has_direction(means)[:, None], means, unit_rows(prototypes))


def compactness_loss(
    features: Tensor, prototypes: Tensor, labels: Tensor, temperature: float, base_temperature: float = 0.07
) -> Tensor:
    """Pulls unit features (B, D) to their class's prototype (C, D): equation 5 -> scalar.

    Mean of -log softmax_c(z . mu_c / temperature) at the label, times temperature / base_temperature. The paper has
    no such factor; the official code inherits it from SupCon with 0.07, so at 0.1 its weight w counts 1.43-fold.
    base_temperature=temperature gives the paper's formula.

    Prototypes are normalised here. One that is zero or not finite is no class to be confused with, and samples of its
    class are left out of the mean; of no samples at all the loss is 0.
    """
    with torch.autocast(features.device.type, enabled=False):
        missing = ~has_direction(prototypes)
        logits = at_least_float32(features) @ unit_rows(prototypes).T / temperature
        targets = labels.masked_fill(missing[labels], -100)
        summed = F.cross_entropy(logits.masked_fill(missing, _least(logits)), targets, reduction="sum")
        return temperature / base_temperature * summed / (targets >= 0).sum().clamp(min=1)


def dispersion_loss(prototypes: Tensor, temperature: float, base_temperature: float = 0.1) -> Tensor:
    """Pushes prototypes (C, D) apart: equation 6, mean_c log mean_(j != c) exp(mu_c . mu_j / temperature) -> scalar.

    Times temperature / base_temperature, as in the official code, whose 0.1 makes that 1 at the paper's temperature.

    Prototypes are normalised here. Those that are zero or not finite are left out, as neighbours too. Fewer than two
    that remain have nothing to flee from: the loss is 0, or NaN if some of the others are not finite.
    """
    with torch.autocast(prototypes.device.type, enabled=False):
        there = has_direction(prototypes)
        units = unit_rows(prototypes)
        pairs = there[:, None] & there & ~torch.eye(len(units), dtype=torch.bool, device=units.device)
        cosines = (units @ units.T / temperature).masked_fill(~pairs, _least(units))
        count = there.sum()
        others = (count - 1).clamp(min=1).to(units.dtype)
        rows = torch.logsumexp(cosines, dim=1) - others.log()
        mean = torch.where(there, rows, 0).sum() / count.clamp(min=1)
        lonely = (prototypes.detach() * 0).sum().to(mean.dtype)
        return temperature / base_temperature * torch.where(count > 1, mean, lonely)


def _least(values: Tensor) -> float:
    """What stands for minus infinity: finite, because a softmax over infinities alone has NaN for its gradient."""
    return torch.finfo(values.dtype).min


class CIDER(Method):
    """w * compactness + dispersion, with prototypes that follow the batch (equation 4).

    The labelled batch holds two views of the same images: images (2B, 3, H, W) are all first views, then all second
    views, and labels (2B,) say each label twice in the same order. That order matters: the last samples of a class
    weigh most in its prototype. The loss itself would take any labelled images.

    Each step, as the official code: the prototypes move by this batch; dispersion sees the moved ones, with gradients
    through the whole recursion; compactness sees them as constants. No gradient crosses from batch to batch.

    Args:
        w: weight of the compactness (lambda_c in the paper).
        proto_m: share of the old prototype at each sample (alpha in the paper); 1 keeps the initial prototypes.
        temperature: of both terms.
        base_temperature: of the compactness, see `compactness_loss`; the temperature itself gives the paper's formula.
        terms: "both", or an ablation with one alone, unweighted.
        prototype_rule: "ema" as above. "batch_mean" is CIDER without a moving average: the unit class means of the
            batch alone, with gradients, nothing remembered but for classes that the batch lacks (proto_m is unused).
            "learnable" are parameters, as in the first official release: optimised beside the network, normalised
            inside the losses, and the compactness pulls at them too (proto_m is unused).
    """

    trains_classifier, embeds = False, True
    prototypes: Tensor

    def __init__(
        self,
        w: float,
        proto_m: float,
        temperature: float,
        base_temperature: float,
        terms: Terms,
        prototype_rule: PrototypeRule,
    ) -> None:
        super().__init__()
        _check_settings(w, proto_m, temperature, base_temperature)
        self.w, self.proto_m, self.temperature, self.base_temperature = w, proto_m, temperature, base_temperature
        self.terms, self.prototype_rule = terms, prototype_rule
        # The network and the data decide the shape; `prepare` or a checkpoint gives it. A parameter keeps its identity
        # then, because the optimiser has it already.
        unknown = torch.empty(0, 0)
        if prototype_rule == "learnable":
            self.prototypes = nn.Parameter(unknown)
        else:
            self.register_buffer("prototypes", unknown)

    def prepare(self, model: nn.Module, batches: Mapping[str, Batch], train_images: Iterable[Batch] = ()) -> None:
        """Start from the unit class means of the training images, seen once and unaugmented by the untrained network.

        `train_images` gives every training image once, with labels. Batch norm is in evaluation mode and keeps its
        statistics. A class without any image starts without a prototype (zeros, left out of both losses) and gets
        one from its first sample.

        Raises:
            FaroutError: `train_images` is empty.
            ConfigError: the network has no projection head.
        """
        self.prototypes.data = unit_rows(_embedding_sums(model, train_images))

    def loss(self, model: nn.Module, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        if not self.prototypes.numel():
            raise FaroutError(
                "CIDER has no prototypes yet: call prepare with the training images before the first step"
            )
        labels = batches["labelled"].targets
        on_host = HostLabels(labels) if self.prototype_rule == "ema" and not runs_triton(labels.device) else None
        embeddings = embed(model, batches["labelled"].images)
        moved = self._moved(embeddings, labels, on_host)
        if self.training and self.prototype_rule != "learnable":
            self.prototypes.copy_(moved.detach())
        return self._weigh(embeddings, moved, labels)

    def _moved(self, embeddings: Tensor, labels: Tensor, on_host: HostLabels | None) -> Tensor:
        """The prototypes (C, D) that this batch's losses see."""
        if self.prototype_rule == "learnable":
            return self.prototypes
        if self.prototype_rule == "batch_mean":
            return batch_mean_prototypes(self.prototypes, embeddings, labels)
        if on_host is None:
            return advance_on_device(self.prototypes, embeddings, self.proto_m, labels)
        order = rank_order(on_host.read(), len(self.prototypes), embeddings.device)
        return advance(self.prototypes, embeddings, self.proto_m, order)

    def _weigh(self, embeddings: Tensor, prototypes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        parts, total = {}, embeddings.new_zeros(())
        if self.terms != "compactness":
            parts["dispersion"] = dispersion_loss(prototypes, self.temperature)
            total = total + parts["dispersion"]
        if self.terms != "dispersion":
            anchors = prototypes if self.prototype_rule == "learnable" else prototypes.detach()
            compactness = compactness_loss(embeddings, anchors, labels, self.temperature, self.base_temperature)
            parts["compactness"] = compactness
            total = total + (self.w if self.terms == "both" else 1.0) * compactness
        return {"total": total, **parts}

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the checkpoint's shape first: a resumed run does not call `prepare`."""
        saved = state_dict.get(f"{prefix}prototypes")
        if saved is not None:
            self.prototypes.data = torch.empty_like(saved, device=self.prototypes.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _check_settings(w: float, proto_m: float, temperature: float, base_temperature: float) -> None:
    if w < 0:
        raise ConfigError(f"w={w:g} is negative: it weighs a loss, the official scripts have 2 and 1")
    if not 0 <= proto_m <= 1:
        raise ConfigError(f"proto_m={proto_m:g} must lie in [0, 1]: it is the share of the old prototype, e.g. 0.95")
    for name, value in (("temperature", temperature), ("base_temperature", base_temperature)):
        if not 0 < value < math.inf:
            raise ConfigError(f"{name}={value:g} must be positive, e.g. 0.1")


@torch.no_grad()
def _embedding_sums(model: nn.Module, train_images: Iterable[Batch]) -> Tensor:
    """Sums of unit embeddings by class (C, D) over a pass in evaluation mode; the network is left as it was."""
    classes = getattr(model, "num_classes", None)
    if classes is None:
        raise ConfigError("CIDER needs a network that says its num_classes: choose backbone=resnet18_cider")
    was_training, sums = model.training, None
    model.eval()
    for batch in train_images:
        more = class_sums(embed(model, batch.images), batch.targets, classes)
        sums = more if sums is None else sums + more
    model.train(was_training)
    if sums is None:
        raise FaroutError(
            "CIDER starts its prototypes from the training images, and there are none: pass train_images="
        )
    return sums
