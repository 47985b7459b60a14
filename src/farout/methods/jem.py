"""JEM: a classifier read as an energy-based model, trained as both (Grathwohl et al., ICLR 2020)."""

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farout.backbones import Backbone
from farout.errors import ConfigError
from farout.methods.base import Batch, Method
from farout.methods.energy import free_energy
from farout.methods.langevin import Clamps, Energy, ReplayBuffer, frozen, langevin_chain

__all__ = ["JEM", "class_energy", "joint_energy", "langevin_chain"]

SHOWN = 64  # rows of the buffer in a picture


def joint_energy(model: nn.Module) -> Energy:
    """x (B, ...) -> E(x) = -logsumexp_y f(x)[y] (B,): -log p(x) up to a constant."""
    return lambda x: free_energy(model(x))


def class_energy(model: nn.Module, labels: Tensor) -> Energy:
    """x (B, ...) -> E(x, y) = -f(x)[y] (B,) at labels y (B,): -log p(x, y) up to a constant."""
    return lambda x: -_at(model(x), labels)


def _at(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None])[:, 0]


@dataclass(eq=False, repr=False)
class JEM(Method):
    """p_x_weight * log p(x) + p_y_given_x_weight * log p(y|x) + p_x_y_weight * log p(x|y), each as a loss.

    The paper's model has weights (1, 1, 0): the two terms see different images, and the gradient of log p(x) is a
    difference of energies, that of data less that of samples which Langevin chains draw from the model itself.
    (0, 0, 1) is its factored variant: class-conditional chains, no cross-entropy. The network must not look at other
    images of its batch: no batch norm.

    Args:
        p_x_weight, p_y_given_x_weight, p_x_y_weight: of the three terms.
        class_cond_p_x_sample: draw the samples of log p(x) by class, labels uniform; their energy is the joint one
            all the same. Better samples, lower accuracy, say the authors.
        buffer_size, reinit_freq: of the replay buffer.
        sgld_steps, sgld_lr, sgld_std: length, step size and noise of the chains.
        clamp_gradient, clamp_images: bounds within the chains (JEM++ and SADA-JEM: 1); None for the paper's.
        sgld_precision: of the network within the chains; bf16 leaves losses and heads in float32.
        restart_sgld_steps: by how much every restart after a divergence lengthens the chains.
        energy_l2_weight: of mean E(x)^2 over data plus that over samples, beside log p(x). It keeps energies near 0,
            where their difference has no floor of its own (Du and Mordatch, NeurIPS 2019; 0: none, as in the paper).
    """

    streams: ClassVar[tuple[str, ...]] = ("labelled", "unlabelled")
    drop_last: ClassVar[bool] = True
    admits_batch_norm: ClassVar[bool] = False
    later: ClassVar[Mapping[str, object]] = {"energy_l2_weight": 0.0}
    full_precision: ClassVar[bool] = True  # as in the paper: chains add up what lower precision loses

    p_x_weight: float
    p_y_given_x_weight: float
    p_x_y_weight: float
    class_cond_p_x_sample: bool
    buffer_size: int
    reinit_freq: float
    sgld_steps: int
    sgld_lr: float
    sgld_std: float
    clamp_gradient: float | None
    clamp_images: float | None
    sgld_precision: Literal["fp32", "bf16"]
    restart_sgld_steps: int
    energy_l2_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__init__()
        self.weights = {"p_x": self.p_x_weight, "p_y_given_x": self.p_y_given_x_weight, "p_x_y": self.p_x_y_weight}
        _check_weights(self.weights)
        _check_energy_l2(self.energy_l2_weight, self.p_x_weight)
        _check_chain(self.sgld_steps, self.sgld_lr, self.sgld_std, self.restart_sgld_steps)
        _check_clamps(clamp_gradient=self.clamp_gradient, clamp_images=self.clamp_images)
        self.precision = torch.bfloat16 if self.sgld_precision == "bf16" else None
        self.steps = self.sgld_steps
        self.replay_buffer = ReplayBuffer(self.buffer_size, self.reinit_freq)

    def prepare(self, model: nn.Module, batches: Mapping[str, Batch], train_images: Iterable[Batch] = ()) -> None:
        """Fill the replay buffer with uniform noise of the images' shape.

        Raises:
            ConfigError: class-conditional chains need a buffer that the classes share evenly.
        """
        by_class = self.class_cond_p_x_sample or self.weights["p_x_y"] > 0
        classes = int(getattr(model, "num_classes", 1))
        if by_class and self.replay_buffer.size % classes:
            raise ConfigError(f"buffer_size={self.replay_buffer.size} must be a multiple of the {classes} classes")
        self.replay_buffer.fill(batches["unlabelled"].images)

    def restarted(self, times: int) -> None:
        self.steps = self.sgld_steps + times * self.restart_sgld_steps

    def loss(self, model: nn.Module, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """In the official order: chains and log p(x), cross-entropy, class-conditional chains and log p(x|y)."""
        parts: dict[str, Tensor] = {}
        if self.weights["p_x"] > 0:
            parts |= self._generative(model, batches["unlabelled"].images)
        labelled = batches["labelled"]
        logits = model(labelled.images)
        if self.weights["p_y_given_x"] > 0:
            parts["p_y_given_x"] = F.cross_entropy(logits, labelled.targets)
        if self.weights["p_x_y"] > 0:
            samples = self.sample(model, len(labelled.images), labelled.targets)
            parts["p_x_y"] = (_at(model(samples), labelled.targets) - _at(logits, labelled.targets)).mean()
        total = sum((weight * parts[name] for name, weight in self.weights.items() if weight > 0), logits.new_zeros(()))
        if self.energy_l2_weight > 0:
            total = total + self.energy_l2_weight * parts["energy_l2"]
        return {"total": total, **parts}

    def _generative(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """-log p(x) without its constant: the energy of data less that of samples; and their squares, if weighted."""
        labels = None
        if self.class_cond_p_x_sample:
            labels = torch.randint(0, model.num_classes, (len(images),), device=images.device)  # type: ignore[call-overload]
        samples = self.sample(model, len(images), labels)
        energy = joint_energy(model)
        each_of_data, each_of_samples = energy(images), energy(samples)
        of_data, of_samples = each_of_data.mean(), each_of_samples.mean()
        parts = {
            "p_x": of_data - of_samples,
            "energy_data": of_data.detach(),
            "energy_samples": of_samples.detach(),
        }
        if self.energy_l2_weight > 0:
            parts["energy_l2"] = each_of_data.square().mean() + each_of_samples.square().mean()
        return parts

    def sample(self, model: nn.Module, count: int, labels: Tensor | None = None) -> Tensor:
        """Run chains for `count` rows of the buffer, of the classes `labels` (B,) if given, and put their ends back.

        Returns the samples (B, ...), detached.
        """
        classes = 1 if labels is None else int(model.num_classes)  # type: ignore[arg-type]
        rows, start = self.replay_buffer.draw(count, labels, classes)
        samples = self.refine(model, start, self.steps, labels)
        self.replay_buffer.write(rows, samples)
        return samples

    @torch.no_grad()
    def log_scalars(self, model: nn.Module) -> dict[str, Tensor]:
        """Energy of uniform noise, where chains begin, beside that of data and samples: always of the same images."""
        rows = self.replay_buffer.images
        if not rows.numel():
            return {}
        fixed = torch.Generator(rows.device).manual_seed(0)
        noise = torch.rand((SHOWN, *rows.shape[1:]), generator=fixed, device=rows.device, dtype=rows.dtype) * 2 - 1
        return {"energy_noise": joint_energy(model)(noise).mean()}

    def log_images(self) -> dict[str, Tensor]:
        """Rows of the buffer, evenly taken and always the same ones; of a class-conditional buffer, class by class."""
        images = self.replay_buffer.images
        count = min(SHOWN, len(images))
        if count == 0:
            return {}
        return {"buffer": images[torch.arange(count, device=images.device) * len(images) // count]}

    def refine(self, model: nn.Module, images: Tensor, steps: int, labels: Tensor | None = None) -> Tensor:
        """`steps` steps of this model's chain from images (B, ...); the buffer is not touched."""
        with _computing_in(self.precision, model), frozen(model):
            return langevin_chain(
                joint_energy(model) if labels is None else class_energy(model, labels),
                images,
                steps,
                self.sgld_lr,
                self.sgld_std,
                clamps=Clamps(self.clamp_gradient, self.clamp_images),
            )


def _computing_in(dtype: torch.dtype | None, model: nn.Module) -> AbstractContextManager[None]:
    """`Backbone.precision`; any other module computes in its weights' own precision, whatever is asked."""
    return model.precision(dtype) if isinstance(model, Backbone) else nullcontext()


def _check_weights(weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise ConfigError(f"{name}_weight={weight:g} must not be negative: the paper has 1, 1 and 0")
    if not any(weights.values()):
        raise ConfigError("p_x_weight, p_y_given_x_weight and p_x_y_weight are all 0: there is nothing to train")


def _check_energy_l2(weight: float, p_x_weight: float) -> None:
    if not 0 <= weight < math.inf:
        raise ConfigError(f"energy_l2_weight={weight:g} must not be negative: 0 is none, as in the paper")
    if weight > 0 and not p_x_weight > 0:
        raise ConfigError(f"energy_l2_weight={weight:g} bounds the energies of log p(x): it needs p_x_weight > 0")


def _check_chain(steps: int, step_size: float, noise: float, more: int) -> None:
    if steps < 0 or more < 0:
        raise ConfigError(f"sgld_steps={steps} and restart_sgld_steps={more} must not be negative: the paper has 20, 0")
    if not 0 < step_size < math.inf:
        raise ConfigError(f"sgld_lr={step_size:g} must be positive, the paper has 1")
    if not 0 <= noise < math.inf:
        raise ConfigError(f"sgld_std={noise:g} must not be negative: the paper has 0.01, 0 draws no noise")


def _check_clamps(**clamps: float | None) -> None:
    for name, value in clamps.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name}={value:g} must be positive, or null for none")
