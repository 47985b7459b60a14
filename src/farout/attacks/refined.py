"""JEM-k: a classifier that first lets the image drift to where the model finds it likelier (Grathwohl et al., 2020)."""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from farout.errors import ConfigError
from farout.methods.langevin import Clamps, langevin_chain


@dataclass(eq=False)
class RefinedClassifier:
    """Mean logits of `copies` noisy copies of an image, each `steps` steps of the model's own chain on.

    The chain descends E(x) = -logsumexp f(x), the energy that JEM trains. The backward pass takes it for the identity
    (straight-through), as wgrathwohl/JEM does: an attack sees the classifier's gradient at the refined image, not that
    of the sampler. Robustness by refinement is therefore robustness to this attack, not to every attack.

    With input_noise = 0, steps = 0 and one copy it is the plain network.

    Args:
        model: normalised images (B, ...) -> logits (B, C), with parameters that want no gradient.
        steps: k, of the chain.
        step_size, noise_std, clamp_gradient, clamp_images: the run's own chain.
        copies: of each image (official: 5).
        input_noise: standard deviation of what each copy gets (the run's own; official: 0.03, and 0 against L2).
        generator: of all noise, on the images' device.

    Raises ConfigError for settings that mean nothing.
    """

    model: nn.Module
    steps: int
    step_size: float
    noise_std: float
    generator: torch.Generator | None = None
    _: KW_ONLY
    clamp_gradient: float | None = None
    clamp_images: float | None = None
    copies: int = 5
    input_noise: float = 0.03

    def __post_init__(self) -> None:
        if self.steps < 0 or self.copies < 1 or not self.input_noise >= 0:
            given = f"refine={self.steps}, copies={self.copies} and input_noise={self.input_noise:g}"
            raise ConfigError(f"{given}: the least are 0, 1 and 0")
        if self.input_noise == 0 and (self.steps == 0 or self.noise_std == 0):
            self.copies = 1  # equal copies have one mean

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images (B, ...) -> mean logits (B, C)."""
        copies = images.repeat_interleave(self.copies, 0)
        if self.input_noise > 0:
            noise = torch.randn(copies.shape, generator=self.generator, device=copies.device, dtype=copies.dtype)
            copies = copies + self.input_noise * noise
        logits: Tensor = self.model(self._refined(copies))
        return logits.unflatten(0, (-1, self.copies)).mean(1)

    def _refined(self, copies: Tensor) -> Tensor:
        """The chains' ends, with the gradient of where they began."""
        if self.steps == 0:
            return copies
        ends = langevin_chain(
            lambda x: -self.model(x).logsumexp(1),
            copies,
            self.steps,
            self.step_size,
            self.noise_std,
            self.generator,
            Clamps(self.clamp_gradient, self.clamp_images),
        )
        return ends + (copies - copies.detach())
