"""What every network here promises: images -> penultimate features -> logits."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farout.errors import ConfigError, FaroutError

Trunk = Callable[[Tensor], Tensor]
Spread = Callable[[Trunk, Tensor], Tensor]  # a trunk and images (B, ...) -> the features (B, D) of all of them


class Backbone(nn.Module, ABC):
    """A classifier whose trunk may run in reduced precision and whose last linear layer never does.

    Subclasses set `head_name` to the attribute that holds the last linear layer and implement `_features`;
    `foreign_names` maps the beginnings of an official code's tensor names to ours where they differ, `foreign_parts`
    pieces anywhere in them;
    `foreign_unused` are beginnings of tensors that the official code saves but never uses.
    `added_heads` are attributes that a network has beyond the trunk and classifier of its plain relative: they start
    afresh where training starts from that one. `common` is what conf/ may say of every network (`set_trainable`,
    `set_freeze_statistics`).
    Logits need full precision because bfloat16 keeps 8 significant bits: near 20 its step is 0.125, so that
    energies of thousands of images would collapse onto a few hundred values.
    """

    head_name = "fc"
    foreign_names: ClassVar[dict[str, str]] = {}
    foreign_parts: ClassVar[dict[str, str]] = {}
    foreign_unused: ClassVar[tuple[str, ...]] = ()
    added_heads: ClassVar[tuple[str, ...]] = ()
    common: ClassVar[dict[str, Any]] = {"trainable": list[str] | None, "freeze_statistics": bool}

    def __init__(self, num_classes: int, feature_dim: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise FaroutError(f"num_classes={num_classes}: a network needs at least one class")
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.autocast_dtype: torch.dtype | None = None
        self.uses_compiled = False  # set by the training loop, for the batches of the usual size
        self.spread: Spread | None = None  # runs the trunk on several devices, where there are several
        self._compiled: Trunk | None = None
        self._frozen_statistics = False

    def to_channels_last(self) -> "Backbone":
        """Lays the weights out as convolutions like them best, unless that would crash (`takes_channels_last`)."""
        return self.to(memory_format=torch.channels_last) if self.takes_channels_last else self

    @cached_property
    def takes_channels_last(self) -> bool:
        """False for very thin networks, which also turn their images round.

        Without AVX-512, oneDNN's gradient of a 1x1 convolution with a stride writes beyond its memory where images in
        channels_last have fewer than 8 channels (seen with torch 2.15).
        """
        strided = (part for part in self.modules() if isinstance(part, nn.Conv2d) and max(part.stride) > 1)
        return not any(part.kernel_size == (1, 1) and part.in_channels < 8 for part in strided)

    @property
    def head(self) -> nn.Linear:
        """The last linear layer, (feature_dim) -> (num_classes)."""
        head = getattr(self, self.head_name)
        assert isinstance(head, nn.Linear)
        return head

    @abstractmethod
    def _features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, feature_dim), in whatever precision autocast asks for."""

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (B, feature_dim) of images (B, 3, H, W), in float32 or better."""
        return self._run_trunk(images) if self.spread is None else self.spread(self._run_trunk, images)

    def _run_trunk(self, images: Tensor) -> Tensor:
        if not self.takes_channels_last:
            images = images.contiguous()
        trunk = self._compiled if self.uses_compiled and self._compiled is not None else self._features
        if self.autocast_dtype is None:
            features = trunk(images)
        else:
            with torch.autocast(images.device.type, dtype=self.autocast_dtype):
                features = trunk(images)
        return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features

    @contextmanager
    def precision(self, dtype: torch.dtype | None) -> Iterator[None]:
        """The trunk computes in `dtype` inside (None: in its weights' own); as before afterwards, also on an error."""
        before, self.autocast_dtype = self.autocast_dtype, dtype
        try:
            yield
        finally:
            self.autocast_dtype = before

    @property
    def trunk_parts(self) -> dict[str, nn.Module]:
        """The trunk's parts that have weights, by name, from the image on: stages, and what stands around them."""
        heads = (self.head_name, *self.added_heads)
        parts = {name: part for name, part in self.named_children() if name not in heads}
        return {name: part for name, part in parts.items() if any(True for _ in part.parameters())}

    def set_trainable(self, trainable: list[str]) -> None:
        """Freeze all of the trunk but these parts, e.g. ["layer3"]; the heads always train.

        Batch norm of frozen parts stays in training mode like everything else: its statistics follow the new data,
        unless `set_freeze_statistics` says otherwise.

        Raises:
            ConfigError: the trunk has no part of that name.
        """
        strange = [name for name in trainable if name not in self.trunk_parts]
        if strange:
            there = ", ".join(self.trunk_parts)
            raise ConfigError(f"backbone.trainable={trainable}: there is no {strange[0]}, only {there}")
        for name, part in self.trunk_parts.items():
            part.requires_grad_(name in trainable)

    def set_freeze_statistics(self, freeze: bool) -> None:
        """Keep all of the trunk's batch norm in evaluation mode: it normalises by the statistics that it began with.

        Scale and shift train as their parts do. For what goes on from a trained network with other augmentations,
        whose statistics would otherwise replace those of the images that are evaluated.

        Raises:
            ConfigError: the trunk has no batch norm.
        """
        if freeze and not self._norms:
            raise ConfigError("backbone.freeze_statistics=true: this network has no batch norm, leave it out")
        self._frozen_statistics = freeze
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """`nn.Module.train`, but for batch norm whose statistics are frozen."""
        super().train(mode)
        if self._frozen_statistics:
            for norm in self._norms:
                norm.eval()
        return self

    @property
    def _norms(self) -> list[nn.Module]:
        parts = self.trunk_parts.values()
        return [module for part in parts for module in part.modules() if isinstance(module, nn.BatchNorm2d)]

    def load_pretrained(self) -> None:
        """Read the weights of others that training starts from, where the configuration names any."""

    def compile_trunk(self) -> None:
        """Compiles the trunk for where `uses_compiled` is set; parameters, names and the state_dict stay as they are.

        Shapes that come once, an evaluation's or an epoch's last batch, are not worth the minute that each takes.
        Without graphs of its own (mode="reduce-overhead"): the training loop records its whole step.
        """
        self._compiled = torch.compile(self._features, dynamic=False)

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, D), with autocast off even where the caller has it on."""
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, 3, H, W)."""
        return self.classify(self.features(images))


def window_average(maps: Tensor, window: int) -> Tensor:
    """Averages the top-left `window` x `window` corner: (B, C, H, W) -> (B, C).

    The published Wide ResNet and AllConv pool with a fixed window rather than globally, so a map that is a
    little too large (9x9 from the 36x36 images of LSUN-C) loses its right and bottom edge. Raises FaroutError
    for maps that the window does not fit exactly once.
    """
    height, width = maps.shape[-2:]
    if not (window <= height < 2 * window and window <= width < 2 * window):
        raise FaroutError(
            f"the last feature map is {height}x{width}, but the pooling window is {window}x{window}: "
            "resize the images or change the network's pool"
        )
    return F.avg_pool2d(maps, window).flatten(1)


def init_fan_out(network: nn.Module) -> None:
    """Initialises as the official Wide ResNet does.

    Convolution weights ~ N(0, sqrt(2 / (k*k*C_out))) (He et al., 2015, fan-out), batch norm as the identity,
    linear biases 0. Convolution biases and linear weights keep PyTorch's default, U(+-1/sqrt(fan_in)).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
