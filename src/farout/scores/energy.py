"""Negative free energy (Liu et al., NeurIPS 2020)."""

import torch
from torch import Tensor

from farout.errors import ConfigError
from farout.scores.base import Outputs, Score


class Energy(Score):
    """-E(x) = T log sum_k exp(f_k / T); the paper uses T = 1. Other temperatures carry T in their name."""

    def __init__(self, temperature: float = 1.0) -> None:
        if temperature <= 0:
            raise ConfigError(f"temperature={temperature}: the energy needs a temperature above 0")
        self.temperature = temperature
        self.name = "energy" if temperature == 1 else f"energy_t{temperature:g}"

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,), in units of logits."""
        return self.temperature * torch.logsumexp(outputs.logits / self.temperature, 1)
