"""Training as one writes it first: float32, every kernel launched singly, torchvision in worker processes.

Losses are written from the papers' equations, without a look at ours; the loss is read to the host at every step, as
the official codes do for their running average.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farout.commands.benchmark.cider import loop_over_samples, plain_dispersion
from farout.methods import Batch

Batches = Mapping[str, Batch]
Loss = Callable[[nn.Module, Batches], Tensor]
Knobs = Mapping[str, Any]


def cross_entropy(knobs: Knobs) -> Loss:
    """Of the labelled images."""
    return lambda model, batches: F.cross_entropy(model(batches["labelled"].images), batches["labelled"].targets)


def energy(knobs: Knobs) -> Loss:
    """Cross-entropy and both squared hinges."""

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        labelled, outliers = batches["labelled"], batches["outliers"]
        logits = model(torch.cat([labelled.images, outliers.images]))
        known, unknown = logits[: len(labelled.images)], logits[len(labelled.images) :]
        above = F.relu(-known.logsumexp(1) - knobs["m_in"]).square().mean()
        below = F.relu(knobs["m_out"] + unknown.logsumexp(1)).square().mean()
        return F.cross_entropy(known, labelled.targets) + knobs["energy_weight"] * (above + below)

    return loss


def supcon(knobs: Knobs) -> Loss:
    """As in the official SupCon code, with masks."""

    def loss(model: nn.Module, batches: Batches) -> Tensor:
        labels = batches["labelled"].targets
        features = model.embed(batches["labelled"].images)  # type: ignore[operator]
        logits = features @ features.T / knobs["temperature"]
        logits = logits - logits.max(1, keepdim=True).values.detach()
        others = 1 - torch.eye(len(labels), device=labels.device)
        same = (labels[:, None] == labels[None, :]).float() * others
        log_probability = logits - torch.log((torch.exp(logits) * others).sum(1, keepdim=True))
        mean = (same * log_probability).sum(1) / same.sum(1)
        return -(knobs["temperature"] / knobs["base_temperature"]) * mean.mean()

    return loss


class Cider:
    """Prototypes that follow the samples one by one, and both terms on them."""

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs
        self.prototypes = torch.empty(0)

    def __call__(self, model: nn.Module, batches: Batches) -> Tensor:
        labels, knobs = batches["labelled"].targets, self.knobs
        features = model.embed(batches["labelled"].images)  # type: ignore[operator]
        moved = loop_over_samples(self.prototypes, features, labels, knobs["proto_m"])
        self.prototypes = moved.detach()
        pull = F.cross_entropy(features @ self.prototypes.T / knobs["temperature"], labels)
        pull = knobs["temperature"] / knobs["base_temperature"] * pull
        return knobs["w"] * pull + plain_dispersion(moved, knobs["temperature"])


LOSSES: Mapping[str, Callable[[Knobs], Loss]] = {
    "ce": cross_entropy,
    "energy": energy,
    "supcon": supcon,
    "cider": Cider,
}


class PlainStep:
    """An update with one of these losses."""

    def __init__(self, model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.average = 0.0

    def __call__(self, batches: Batches) -> None:
        loss = self.loss(self.model, batches)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average = 0.8 * self.average + 0.2 * float(loss.detach())
