"""What a JSON file must look like before anything is taken from it."""

from collections.abc import Mapping
from typing import Any

NUMBER = (int, float)


def misfit(value: Any, shape: Any, where: str = "") -> str | None:
    """What is wrong with a JSON value, in words that name the place; None where it has the shape.

    A shape is a type or a tuple of types (None stands for null), a list of one shape, or a dict of shapes by key;
    `key?` may be absent, other keys may be anything. Truth values are no numbers.
    """
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            return f"{where or 'the file'} is no object"
        return next(filter(None, (_member(value, key, inner, where) for key, inner in shape.items())), None)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is no list"
        return next(filter(None, (misfit(item, shape[0], f"{where}[{i}]") for i, item in enumerate(value))), None)
    kinds = shape if isinstance(shape, tuple) else (shape,)
    fits = any(value is None if kind is None else isinstance(value, kind) for kind in kinds)
    if not fits or (isinstance(value, bool) and bool not in kinds):
        return f"{where} is {_kind(value)}, not {' or '.join(_NAMES[kind] for kind in kinds)}"
    return None


def _member(value: Mapping[str, Any], key: str, inner: Any, where: str) -> str | None:
    name = key.removesuffix("?")
    place = f"{where}.{name}" if where else name
    if name not in value:
        return None if key.endswith("?") else f"{place} is missing"
    return misfit(value[name], inner, place)


_NAMES: dict[Any, str] = {None: "null", int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_NAMES |= {dict: "an object", list: "a list"}


def _kind(value: Any) -> str:
    return _NAMES.get(None if value is None else type(value), "something else")
