"""Weights that another code base trained, checked before a single one is copied.

What the official code saves, as this module meets it:

    Energy, Outlier Exposure   a state dict, with `module.` before every name after training on several GPUs
    JEM                        {"model_state_dict": ..., "replay_buffer": ...}; `f.*`, `class_output.*`, and two linear
                               layers that its joint objective never uses (`f.linear.*`, `energy_output.*`)
    CIDER, SupCon              {"state_dict" or "model": ..., "epoch": ..., ...}; `encoder.*`, `head.*`, `fc.*`
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from farout.backbones.base import Backbone
from farout.errors import FaroutError

_LISTED = 8  # differences of one kind that a message names; the rest are counted
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")


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


def unwrap(content: Any) -> dict[str, Tensor] | None:
    """The state dict in what torch.load returned, at the top or in a wrapper's usual entry; None without one."""
    while isinstance(content, Mapping):
        if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
            return dict(content)
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    return None


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


def load_foreign_state(backbone: Backbone, state_dict: Mapping[str, Tensor]) -> None:
    """Copies foreign weights into `backbone`; names may carry DataParallel's `module.`.

    Raises FaroutError naming what is missing, unexpected or differently shaped; `backbone` is then unchanged.
    """
    found = differences(backbone, state_dict)
    if found:
        raise FaroutError(f"the weights do not fit {type(backbone).__name__}: {found}")
    backbone.load_state_dict(_translated(backbone, state_dict)[0], strict=False)


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


def _plain(key: str) -> str:
    """Without DataParallel's `module.`, which stands in front, or behind `encoder.` where only that was wrapped."""
    return re.sub(r"(^|\.)module\.", r"\1", key)


def _our_name(backbone: Backbone, key: str) -> str:
    for theirs, ours in backbone.foreign_names.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def _describe(kind: str, items: list[str]) -> str:
    more = f", and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return f"{len(items)} {kind}: {', '.join(items[:_LISTED])}{more}"
