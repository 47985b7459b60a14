"""Weights that another code base trained, checked before a single one is copied."""

from collections.abc import Mapping

from torch import Tensor

from farout.backbones.base import Backbone
from farout.errors import FaroutError

_LISTED = 8  # differences named in a message; the rest are counted


def load_foreign_state(backbone: Backbone, state_dict: Mapping[str, Tensor]) -> None:
    """Copies foreign weights into `backbone`, keys with or without DataParallel's `module.` prefix.

    Batch norm's `num_batches_tracked` may be absent (files older than PyTorch 0.4.1); all else must match.
    Raises FaroutError naming what is missing, unexpected or differently shaped; `backbone` is then unchanged.
    """
    theirs = {_our_name(backbone, key): value for key, value in state_dict.items()}
    ours = backbone.state_dict()
    optional = {key for key in ours if key.endswith("num_batches_tracked")}
    groups = {
        "missing": sorted(ours.keys() - theirs.keys() - optional),
        "unexpected": sorted(theirs.keys() - ours.keys()),
        "shape": [
            f"{key} {tuple(theirs[key].shape)} in the file, {tuple(ours[key].shape)} in the network"
            for key in ours
            if key in theirs and theirs[key].shape != ours[key].shape
        ],
    }
    if any(groups.values()):
        found = "; ".join(_describe(kind, items) for kind, items in groups.items() if items)
        raise FaroutError(f"the weights do not fit {type(backbone).__name__}: {found}")
    backbone.load_state_dict(theirs, strict=False)


def _our_name(backbone: Backbone, key: str) -> str:
    key = key.removeprefix("module.")
    for theirs, ours in backbone.foreign_names.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def _describe(kind: str, items: list[str]) -> str:
    more = f", and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return f"{len(items)} {kind}: {', '.join(items[:_LISTED])}{more}"
