"""Energy-bounded fine-tuning (Liu et al., NeurIPS 2020, equations 7 to 9)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from farout.errors import ConfigError
from farout.methods.base import Batch, Method, joint_logits


def free_energy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """E(x) = -T logsumexp_k(f_k(x) / T): logits (B, C) -> (B,). Lower for images the network knows (equation 4)."""
    return -temperature * torch.logsumexp(logits / temperature, dim=1)


def energy_margin_loss(
    id_logits: Tensor, outlier_logits: Tensor, m_in: float, m_out: float, temperature: float = 1.0
) -> Tensor:
    """Sum of both squared hinges, unweighted: mean max(0, E_in - m_in)^2 + mean max(0, m_out - E_out)^2 (equation 8).

    id_logits (B, C), outlier_logits (M, C) -> scalar. Margins are energies, hence negative for the paper's networks.
    """
    above_in = F.relu(free_energy(id_logits, temperature) - m_in)
    below_out = F.relu(m_out - free_energy(outlier_logits, temperature))
    return above_in.square().mean() + below_out.square().mean()


class EnergyFineTuning(Method):
    """Cross-entropy plus `energy_weight` times the margin loss (0.1 for both hinges together, as the code has it)."""

    streams: ClassVar[tuple[str, ...]] = ("labelled", "outliers")

    def __init__(self, m_in: float, m_out: float, energy_weight: float, temperature: float) -> None:
        super().__init__()
        _check_margins(m_in, m_out)
        if energy_weight < 0:
            raise ConfigError(f"energy_weight={energy_weight:g} is negative: it weighs a loss, the paper's is 0.1")
        if temperature <= 0:
            raise ConfigError(f"temperature={temperature:g} must be positive, the paper's value is 1")
        self.m_in, self.m_out = m_in, m_out
        self.energy_weight, self.temperature = energy_weight, temperature

    def loss(self, model: nn.Module, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        id_logits, outlier_logits = joint_logits(model, batches["labelled"], batches["outliers"])
        cross_entropy = F.cross_entropy(id_logits, batches["labelled"].targets)
        margin = energy_margin_loss(id_logits, outlier_logits, self.m_in, self.m_out, self.temperature)
        return {
            "total": cross_entropy + self.energy_weight * margin,
            "cross_entropy": cross_entropy,
            "energy_margin": margin,
            "energy_id": free_energy(id_logits.detach(), self.temperature).mean(),
            "energy_outliers": free_energy(outlier_logits.detach(), self.temperature).mean(),
        }


def _check_margins(m_in: float, m_out: float) -> None:
    """ID energies go below m_in and outliers' above m_out, so m_in < m_out <= 0 (the paper's text swaps them)."""
    for name, value in (("m_in", m_in), ("m_out", m_out)):
        if value > 0:
            raise ConfigError(f"{name}={value:g} has the wrong sign: energies are negative, e.g. m_in=-25 m_out=-7")
    if m_in >= m_out:
        raise ConfigError(
            f"m_in={m_in:g} must lie below m_out={m_out:g}: ID energies are pushed below m_in, outliers' above m_out"
        )
