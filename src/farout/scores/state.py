"""A fitted score as tensors and JSON, and back: what a detector's file holds instead of a pickle.

Whatever `vars(score)` holds may be: None, booleans, numbers, strings; tensors and NumPy arrays; tuples, lists and
dicts (with string keys) of these; and objects of ours that hold such values: dataclasses and other scores. Anything
else is an error, when saving: a file that cannot be loaded is never written.
"""

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from farout.errors import FaroutError
from farout.scores.base import Score

PLAIN = (type(None), bool, int, float, str)


def encode(score: Score) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(JSON-able attributes, their tensors by name), on the CPU; raises FaroutError naming what cannot be saved."""
    tensors: dict[str, Tensor] = {}
    kept = {key: value for key, value in vars(score).items() if key not in score.ways}
    return {key: _encoded(value, key, score.name, tensors) for key, value in kept.items()}, tensors


def decode(score: Score, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Gives `score`, freshly built with the same arguments, the state of the one that was encoded.

    Tensors are copied into fresh memory, contiguous and aligned, so that scores do not depend on where they came
    from. Raises FaroutError where the state is not one of this score.
    """
    if not vars(score).keys() - set(score.ways) <= state.keys():
        raise FaroutError(f"the saved state is not one of score {score.name}: save the detector again")
    try:
        vars(score).update({key: _decoded(value, tensors) for key, value in state.items()})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FaroutError(f"the saved state of score {score.name} is damaged ({error}): save it again") from None


def _encoded(value: Any, path: str, score: str, tensors: dict[str, Tensor]) -> Any:
    if type(value) in PLAIN:
        return value
    if isinstance(value, np.generic):
        return _encoded(value.item(), path, score, tensors)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": _encoded(torch.from_numpy(value.copy()), path, score, tensors)["tensor"]}
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {"tensor": path}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_encoded(v, f"{path}.{i}", score, tensors) for i, v in enumerate(value)]}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _encoded(v, f"{path}.{key}", score, tensors) for key, v in value.items()}}
    if _is_ours(type(value)):
        fields = {key: _encoded(v, f"{path}.{key}", score, tensors) for key, v in _attributes(value).items()}
        return {"object": f"{type(value).__module__}:{type(value).__qualname__}", "attributes": fields}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise FaroutError(
        f"score {score} cannot be saved: {path} is a {kind}; keep numbers, tensors or dataclasses of them"
    )


def _is_ours(kind: Any) -> bool:
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, Score))


def _attributes(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(vars(value))


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]].clone(memory_format=torch.contiguous_format)
    if "array" in value:
        return tensors[value["array"]].clone().numpy()
    if "dict" in value:
        return {key: _decoded(item, tensors) for key, item in value["dict"].items()}
    if "object" in value:
        return _object(value["object"], {key: _decoded(item, tensors) for key, item in value["attributes"].items()})
    [(kind, items)] = value.items()
    return {"list": list, "tuple": tuple}[kind](_decoded(item, tensors) for item in items)


def _object(name: str, attributes: Mapping[str, Any]) -> Any:
    """An instance with these attributes; its constructor is not called."""
    module, _, qualname = name.partition(":")
    kind: Any = trusted_module(module)
    for part in qualname.split("."):
        kind = getattr(kind, part)
    if not _is_ours(kind):
        raise FaroutError(f"the file names {name}, which is no part of a score: it was not saved by farout")
    made = object.__new__(kind)
    for key, item in attributes.items():
        object.__setattr__(made, key, item)
    return made


def trusted_module(name: str) -> Any:
    """A module that a file names: one of ours, or one that is imported already; a file imports nothing else.

    Raises FaroutError for all others.
    """
    if name.partition(".")[0] != "farout" and name not in sys.modules:
        raise FaroutError(f"the file needs {name}, which is not part of farout: import {name} first if you trust it")
    try:
        return importlib.import_module(name)
    except ImportError:
        raise FaroutError(
            f"the file needs {name}, which is not there: use the version of farout that wrote it"
        ) from None
