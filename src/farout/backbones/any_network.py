"""Any classifier as a network of this package: its penultimate features are what its last linear layer is given."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from farout.backbones.base import Backbone
from farout.errors import FaroutError

TOLERANCE = 1e-3  # of the model's output against its last linear layer's, relative to the largest logit


class AnyNetwork(Backbone):
    """A copy of a classifier, in evaluation mode and float32 or better; the given model stays as it is.

    Args:
        model: images (B, C, H, W) -> logits. What DataParallel or torch.compile put around it is left away.
        head: name of the linear layer that makes the logits (`find_head` finds it).

    Raises FaroutError where the model has no linear layer of that name, or cannot be copied.
    """

    def __init__(self, model: nn.Module, head: str) -> None:
        model = _copied(unwrapped(model)).eval().cpu()
        layers = _linear_layers(model)
        if head not in layers:
            raise FaroutError(f"head={head} is no linear layer of {type(model).__name__}: {_choice(layers)}")
        super().__init__(layers[head].out_features, layers[head].in_features)
        if any(part.dtype in (torch.float16, torch.bfloat16) for part in model.parameters()):
            model = model.float()
        self.model, self.head_path = model, head

    @property
    def head(self) -> nn.Linear:
        """The last linear layer, (feature_dim) -> (num_classes)."""
        head = self.model.get_submodule(self.head_path)
        assert isinstance(head, nn.Linear)
        return head

    def _features(self, images: Tensor) -> Tensor:
        with _calls({self.head_path: self.head}) as calls, _taking(images):
            self.model(images)
        return calls[-1][1]


@torch.no_grad()
def find_head(model: nn.Module, example: Tensor, head: str | None = None) -> tuple[str, bool]:
    """Name of the layer that makes a model's logits, and whether they are what the model returns.

    Args:
        model: of a tuple, a mapping or an object with `logits`, the logits are taken.
        example: some of its input, (B, C, H, W), on the model's device.
        head: a layer to look at; None: the linear layer that a forward pass calls last.

    Raises FaroutError where there is none, where it is not given one vector an image, or where the model takes another
    class for the likeliest than that layer does.
    """
    layers = _linear_layers(model)
    watched = layers if head is None else {head: layers[head]} if head in layers else {}
    with _evaluating(model), _calls(watched) as calls, _taking(example):
        output = _logits_of(model(example))
    if not calls:
        what = f"head={head} makes no logits" if head else "no linear layer makes the logits"
        raise FaroutError(f"{what} of {type(model).__name__}, and the scores need one: {_choice(layers)}")
    name, given, logits = calls[-1]
    if given.dim() != 2 or len(given) != len(example):
        raise FaroutError(f"{name} is given {tuple(given.shape)}, not one vector an image: {_choice(layers)}")
    return name, _same(output, logits, name)


def unwrapped(model: nn.Module) -> nn.Module:
    """A model without torch.compile, whose graphs call no hooks, and without DataParallel."""
    for attribute in ("_orig_mod", "module"):
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module) and type(model).__module__.startswith("torch."):
            return unwrapped(inner)
    return model


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise FaroutError(f"the model cannot be copied ({reason}): give one that copy.deepcopy takes") from None


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode within; every part as it was afterwards."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _taking(images: Tensor) -> Iterator[None]:
    """What a model raises within for images that it was not made for, as one line; a full memory stays what it is."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise FaroutError(f"the model does not take input of shape {tuple(images.shape)}: {reason}") from None


Call = tuple[str, Tensor, Tensor]  # a layer's name, what it was given, what it made of it


@contextmanager
def _calls(layers: dict[str, nn.Linear]) -> Iterator[list[Call]]:
    """What the layers are given and make within, call by call."""
    calls: list[Call] = []

    def hook(name: str) -> Any:
        return lambda _, given, made: calls.append((name, given[0], made))

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _logits_of(output: Any) -> Tensor:
    """The logits in what a model returns."""
    if isinstance(output, dict) and "logits" in output:
        output = output["logits"]
    output = getattr(output, "logits", output)
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise FaroutError(f"the model returns {type(output).__name__}: it has to return logits (B, K)")
    return output


def _same(output: Tensor, logits: Tensor, name: str) -> bool:
    """Whether the layer's logits are the model's output; raises FaroutError where they order the classes otherwise."""
    if output.shape != logits.shape:
        raise FaroutError(
            f"the model returns {tuple(output.shape)}, its last linear layer {name} {tuple(logits.shape)}: "
            "name the layer that makes the logits with head=NAME"
        )
    if torch.allclose(output, logits, rtol=0, atol=TOLERANCE * float(logits.abs().max())):
        return True
    if not torch.equal(output.argmax(1), logits.argmax(1)):
        raise FaroutError(
            f"the model's largest output is not that of its last linear layer {name}: "
            "name the layer that makes the logits with head=NAME"
        )
    return False


def _choice(layers: dict[str, nn.Linear]) -> str:
    shown = [f"{name} ({part.in_features} -> {part.out_features})" for name, part in list(layers.items())[-5:]]
    return f"name one of its linear layers with head=NAME: {', '.join(shown)}" if shown else "it has no linear layer"
