"""Langevin dynamics over images, and the replay buffer that its chains start from (Grathwohl et al., ICLR 2020)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from farout.errors import ConfigError, FaroutError

Energy = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Clamps:
    """Bounds c within a chain, None for none: each entry of the gradient, and of x after each step, into [-c, c].

    JEM++ and SADA-JEM have 1 for both.
    """

    gradient: float | None = None
    images: float | None = None


def langevin_chain(
    energy: Energy,
    x: Tensor,
    steps: int,
    step_size: float,
    noise_std: float,
    generator: torch.Generator | None = None,
    clamps: Clamps | None = None,
) -> Tensor:
    """`steps` times x <- x - step_size * grad E(x) + noise_std * N(0, I), from x (B, ...); the given x stays as it is.

    `energy` maps (B, ...) to (B,), low where the model expects data: JEM's is -logsumexp of the logits. The official
    code calls f what is -E here and ascends it. Its step 1 with noise 0.01 is no exact Langevin step, which would
    have noise sqrt(2 * step_size): the chain is far colder.

    Only gradients by x are computed; whoever samples from a network should freeze its parameters (`frozen`), so that
    nothing is kept for theirs. Nothing waits for the device. noise_std = 0 draws nothing.

    Args:
        generator: on the device of x; None is torch's own.
        clamps: bounds; None: none, as the paper has it.
    """
    clamps = clamps or Clamps()
    x = x.detach()
    with torch.inference_mode(False), torch.enable_grad():
        for _ in range(steps):
            leaf = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(energy(leaf).sum(), leaf)
            if clamps.gradient is not None:
                gradient = gradient.clamp_(-clamps.gradient, clamps.gradient)
            x = leaf.detach().sub_(gradient, alpha=step_size)
            if noise_std > 0:
                noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
                x.add_(noise, alpha=noise_std)
            if clamps.images is not None:
                x.clamp_(-clamps.images, clamps.images)
    return x


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """In evaluation mode and with parameters that want no gradient; afterwards as it was."""
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = model.training
    model.eval()
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)
        model.train(training)


class ReplayBuffer(nn.Module):
    """Samples that the next chains go on from (persistent contrastive divergence), part of the training state.

    Rows start uniform in [-1, 1]. For class-conditional chains the rows y N/C to (y + 1) N/C - 1 belong to class y.

    Args:
        size: N, images in the buffer.
        reinit_freq: probability that a chain starts from fresh uniform noise instead of its row.
    """

    images: Tensor

    def __init__(self, size: int, reinit_freq: float) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"buffer_size={size} must be at least 1, the paper has 10000")
        if not 0 <= reinit_freq <= 1:
            raise ConfigError(f"reinit_freq={reinit_freq:g} is a probability: give one in [0, 1], the paper has 0.05")
        self.size, self.reinit_freq = size, reinit_freq
        self.register_buffer("images", torch.empty(0))  # `fill` or a checkpoint gives the shape

    def fill(self, like: Tensor) -> None:
        """Uniform noise (size, ...) with the image shape and device of `like` (B, ...)."""
        self.images = uniform((self.size, *like.shape[1:]), like)

    def draw(self, count: int, labels: Tensor | None = None, num_classes: int = 1) -> tuple[Tensor, Tensor]:
        """Rows (B,), drawn with replacement, and where their chains start (B, ...).

        With `labels` (B,) each row is one of its class's. The draws come from torch's own generator: rows, noise,
        then who restarts.
        """
        if not self.images.numel():
            raise FaroutError("the replay buffer is empty: call prepare before the first step")
        per_class = self.size // num_classes
        rows = torch.randint(0, self.size if labels is None else per_class, (count,), device=self.images.device)
        if labels is not None:
            rows = rows + labels * per_class
        noise = uniform((count, *self.images.shape[1:]), self.images)
        restart = torch.rand(count, device=self.images.device) < self.reinit_freq
        return rows, torch.where(restart.view(-1, *[1] * (noise.ndim - 1)), noise, self.images[rows])

    def write(self, rows: Tensor, samples: Tensor) -> None:
        """Put samples (B, ...) at rows (B,); where a row was drawn twice the later sample stays.

        Indexed assignment leaves open which of two writes wins, so both write the later one's value.
        """
        order = torch.arange(len(rows), device=rows.device)
        last = torch.zeros(self.size, dtype=torch.long, device=rows.device)
        last.scatter_reduce_(0, rows, order, "amax")
        self.images[rows] = samples.detach()[last[rows]].to(self.images.dtype)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the checkpoint's shape first: a resumed run does not call `prepare`."""
        saved = state_dict.get(f"{prefix}images")
        if saved is not None:
            self.images = torch.empty_like(saved, device=self.images.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def uniform(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Noise in [-1, 1], where chains begin, with the type and device of `like`."""
    return torch.empty(shape, dtype=like.dtype, device=like.device).uniform_(-1, 1)
