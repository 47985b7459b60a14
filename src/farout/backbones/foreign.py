"""Weights that another code base trained, checked before a single one is copied.

What the official code saves, as this module meets it:

    Energy, Outlier Exposure   a state dict, with `module.` before every name after training on several GPUs
    JEM                        {"model_state_dict": ..., "replay_buffer": ...}; `f.*`, `class_output.*`, and two linear
                               layers that its joint objective never uses (`f.linear.*`, `energy_output.*`)
    CIDER, SupCon              {"state_dict" or "model": ..., "epoch": ..., ...}; `encoder.*`, `head.*`, `fc.*`
    torchvision                a state dict; `downsample` where our CIFAR ResNets have `shortcut`
    kuangliu/pytorch-cifar     {"net": ..., "acc": ..., "epoch": ...}; our names
    weiaicunzai/pytorch-cifar100   a state dict; `conv2_x.0.residual_function.0.weight`, ...
    OpenOOD                    a state dict; `shortcut` and `fc`, for CIDER `backbone.*` and `head.*`
    solo-learn                 {"state_dict": ...}; `backbone.*`, `classifier.*`

Wrapping dicts, averages of the weights and prefixes of any name are weight_sets.py's part.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from farout.backbones.base import Backbone
from farout.backbones.weight_sets import WeightSet
from farout.errors import FaroutError

_LISTED = 8  # differences of one kind that a message names; the rest are counted
# What PyTorch's own wrappers (DataParallel, compile, FSDP, checkpointing) put into names, in front or in between.
_WRAPPING = re.compile(r"(^|\.)((module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")


@dataclass(frozen=True)
class Differences:
    """Why foreign weights do not fit a network; false where they do. `shape` is by our names, the rest by theirs."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)  # (file's, network's)

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.shape)

    def __str__(self) -> str:
        shapes = [f"{key} {theirs} in the file, {ours} in the network" for key, (theirs, ours) in self.shape.items()]
        groups = {"missing": self.missing, "unexpected": self.unexpected, "shape": shapes}
        return "; ".join(_describe(kind, items) for kind, items in groups.items() if items)


@dataclass(frozen=True)
class WeightsMatch:
    """Weights of a file beside a network: which of the file's names were taken, and what keeps them from fitting."""

    weights: WeightSet
    differences: Differences
    matching: int  # tensors that both have, in one shape


def weights_matches(backbone: Backbone, weights: WeightSet) -> list[WeightsMatch]:
    """The ways in which a set of weights fits `backbone`, whole or behind a prefix that it shares; or else the nearest.

    More than one where it holds several networks alike (`one.*`, `two.*`).
    """
    needed = sum(not key.endswith("num_batches_tracked") for key in backbone.state_dict())
    tried = [_match(backbone, weights.behind(prefix)) for prefix in weights.prefixes(needed / 2)]
    exact: list[WeightsMatch] = []
    for found in tried:
        known = [fit.weights.prefix for fit in exact]
        if not found.differences and not any(found.weights.prefix.startswith(prefix) for prefix in known):
            exact.append(found)
    return exact or [max(tried, key=lambda fit: (fit.matching, -len(fit.differences)))]


def _match(backbone: Backbone, weights: WeightSet) -> WeightsMatch:
    found = differences(backbone, weights.state)
    taken = len(weights.state) - len(found.unexpected) - len(found.shape) - len(left_out(backbone, weights.state))
    return WeightsMatch(weights, found, taken)


def differences(backbone: Backbone, state_dict: Mapping[str, Tensor]) -> Differences:
    """Names and shapes that foreign weights and `backbone` do not share; neither is changed.

    Batch norm's `num_batches_tracked` may be absent (files older than PyTorch 0.4.1), as may nothing else.
    """
    theirs, unexpected = _translated(backbone, state_dict)
    ours = backbone.state_dict()
    optional = {key for key in ours if key.endswith("num_batches_tracked")}
    return Differences(
        missing=sorted(ours.keys() - theirs.keys() - optional),
        unexpected=sorted([*unexpected, *(theirs.keys() - ours.keys())]),
        shape={
            key: (tuple(theirs[key].shape), tuple(value.shape))
            for key, value in ours.items()
            if key in theirs and theirs[key].shape != value.shape
        },
    )


def left_out(backbone: Backbone, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Names in the file that the official code itself never uses, and that are therefore not taken over."""
    return [key for key in state_dict if _plain(key).startswith(backbone.foreign_unused)]


def load_foreign_state(backbone: Backbone, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Copies foreign weights into `backbone`; names may carry the `module.` of DataParallel and its like.

    Returns:
        The kinds of numbers that became float32, e.g. ["float16"]; [] where all were.

    Raises:
        FaroutError: something is missing, unexpected, differently shaped, or no finite number; `backbone` is unchanged.
    """
    found = differences(backbone, state_dict)
    if found:
        raise FaroutError(f"the weights do not fit {type(backbone).__name__}: {found}")
    theirs = _translated(backbone, state_dict)[0]
    kinds = {str(value.dtype).removeprefix("torch.") for value in theirs.values() if value.is_floating_point()}
    backbone.load_state_dict(_finite(backbone, theirs), strict=False)
    return sorted(kinds - {"float32"})


def _finite(backbone: Backbone, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the types that the network has; raises FaroutError for those that hold no finite numbers."""
    ours = backbone.state_dict()
    strange = [
        key
        for key, value in theirs.items()
        if value.layout != torch.strided or value.is_meta or ours[key].is_floating_point() > value.is_floating_point()
    ]
    if strange:
        kind = str(theirs[strange[0]].dtype).removeprefix("torch.")
        raise FaroutError(
            f"the weights are no plain floating-point numbers in {len(strange)} tensors ({strange[0]}: {kind}, ...): "
            "give the weights that were trained, not quantised or compressed ones"
        )
    values = {key: value.to(ours[key].dtype) for key, value in theirs.items()}
    broken = [key for key, value in values.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise FaroutError(
            f"the weights have NaN or infinity in {len(broken)} tensors ({broken[0]}, ...): take another epoch"
        )
    return values


def _translated(backbone: Backbone, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by our names, and the file's names that would overwrite another one of its tensors."""
    unused = set(left_out(backbone, state_dict))
    theirs: dict[str, Tensor] = {}
    twice = []
    for key, value in state_dict.items():
        if key in unused:
            continue
        name = _our_name(backbone, _plain(key))
        if name in theirs:
            twice.append(key)
        theirs.setdefault(name, value)
    return theirs, twice


def plain_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names without what PyTorch's wrappers add."""
    return {_plain(key): value for key, value in state_dict.items()}


def _plain(key: str) -> str:
    """Without what PyTorch's wrappers put in front, or behind `encoder.` where only that was wrapped."""
    return _WRAPPING.sub(r"\1", key)


def _our_name(backbone: Backbone, key: str) -> str:
    for theirs, ours in backbone.foreign_parts.items():
        key = key.replace(theirs, ours)
    for theirs, ours in backbone.foreign_names.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def listed(items: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = f", and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return f"{', '.join(items[:_LISTED])}{more}"


def _describe(kind: str, items: list[str]) -> str:
    return f"{len(items)} {kind}: {listed(items)}"
