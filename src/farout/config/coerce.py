"""From the command line's values to the types that the code declares; nothing unknown or blank gets through."""

import dataclasses
import importlib
import inspect
import types
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from farout.errors import ConfigError
from farout.targets import locate

T = TypeVar("T")
# What a `_target_` may name, by the group that it stands in.
KINDS = {
    "method": "farout.methods.Method",
    "backbone": "farout.backbones.Backbone",
    "transform": "farout.data.transform.Transform",
    "score": "farout.scores.Score",
}


def one_of(key: str, value: object, allowed: Sequence[object]) -> ConfigError:
    """The error for a value outside a list, with the likely meant one."""
    names = [str(item) for item in allowed]
    close = get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return ConfigError(f"{key}={value} is not an option{hint}: choose from {', '.join(names)}")


def unknown(keys: Sequence[str], where: str, allowed: Sequence[str]) -> ConfigError:
    """The error for option names that do not exist."""
    close = get_close_matches(keys[0].rsplit(".", 1)[-1], list(allowed), n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    plural = "s" if len(keys) > 1 else ""
    if not allowed:
        return ConfigError(f"unknown option{plural} {', '.join(keys)}: {where} has none, see --help")
    return ConfigError(f"unknown option{plural} {', '.join(keys)}{hint}: {where} has {', '.join(allowed)}")


def coerce(value: Any, wanted: Any, key: str) -> Any:
    """`value` as type `wanted` (int, float, bool, str, Literal, X | None, list, dict); raises ConfigError naming `key`.

    Whole floats pass as int and numbers in quotes as numbers, so that 10, 10.0 and "10" are one setting with one
    fingerprint; 1.5 is never an int and blanks are never anything.
    """
    origin = get_origin(wanted)
    if wanted is Any:
        return value
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in get_args(wanted) if kind is not type(None)]
        if value is None and len(kinds) < len(get_args(wanted)):
            return None
        return coerce(value, kinds[0], key)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ConfigError(f"{key} is blank: give a value, e.g. {key}={_example(wanted)}")
    if origin is Literal:
        # By type as well: 1 == True, but compile=1 is not compile=true.
        if not any(value == option and type(value) is type(option) for option in get_args(wanted)):
            raise one_of(key, value, get_args(wanted))
        return value
    if origin in (list, tuple, Sequence) or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        return _coerce_list(value, get_args(wanted)[0], key)
    if wanted is dict or origin is dict:
        return _mapping(value, key)
    return _coerce_scalar(value, wanted, key)


def _coerce_list(value: Any, item_type: Any, key: str) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{key}={value} is not a list: write {key}=[a,b]")
    return [coerce(item, item_type, f"{key}[{i}]") for i, item in enumerate(value)]


def _coerce_scalar(value: Any, wanted: type, key: str) -> Any:
    error = ConfigError(f"{key}={value} is not {_kind(wanted)}: give a value like {key}={_example(wanted)}")
    if wanted is bool:
        if isinstance(value, bool):
            return value
        raise error
    if isinstance(value, bool | Mapping | Sequence) and not isinstance(value, str):
        raise error
    if wanted is str or (wanted is int and isinstance(value, int)):
        return wanted(value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise error from None
    if number != number or number in (float("inf"), float("-inf")):
        raise error
    if wanted is float:
        return number
    if number != int(number):
        raise error
    return int(number)


def _kind(wanted: Any) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(wanted, str(wanted))


def _example(wanted: Any) -> str:
    return {int: "10", float: "0.1", bool: "true", str: "name"}.get(wanted, "...")


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}={value} is not a group of values: choose one of its files, or set {key}.NAME=VALUE")
    return {str(name): item for name, item in value.items()}


def build_dataclass(kind: type[T], values: Any, where: str) -> T:
    """A dataclass from a mapping: every key known, every field given or defaulted, every value coerced."""
    mapping = _mapping(values, where)
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    strange = [prefix + key for key in mapping if key not in fields]
    if strange:
        raise unknown(strange, where or "this command", list(fields))
    given = {key: coerce(value, hints[key], prefix + key) for key, value in mapping.items()}
    absent = [name for name, field in fields.items() if name not in given and _required(field)]
    if absent:
        raise ConfigError(f"{prefix}{absent[0]} is missing: set {prefix}{absent[0]}=...")
    return kind(**given)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class Component:
    """A class named by `_target_` with coerced arguments: Hydra's way to say which network, method or score.

    `component` makes them of what stands in files, and refuses all but our own classes there.
    """

    name: str
    target: str
    arguments: dict[str, Any]

    @property
    def kind(self) -> Any:
        """The class itself, for what it says of all its objects; Python code may name one of its own."""
        module, _, name = self.target.rpartition(".")
        return getattr(importlib.import_module(module), name)

    def build(self, **more: Any) -> Any:
        """Call the class; what every class of its kind takes (`common`) is set on the object afterwards."""
        own = {key: value for key, value in self.arguments.items() if key not in _common(self.kind)}
        built = self.kind(**own, **more)
        for key in self.arguments.keys() - own.keys():
            getattr(built, f"set_{key}")(self.arguments[key])
        return built

    def record(self) -> dict[str, Any]:
        """What fingerprints and records keep of it: all but what came later and stands where it changes nothing."""
        later: Mapping[str, Any] = getattr(self.kind, "later", {})
        kept = {key: value for key, value in self.arguments.items() if key not in later or value != later[key]}
        return {"name": self.name, **kept}

    def without_common(self) -> "Component":
        """The same with nothing set of what every class of its kind takes."""
        common = _common(self.kind)
        own = {key: value for key, value in self.arguments.items() if key not in common}
        return dataclasses.replace(self, arguments=own)


def class_of(target: str, group: str | None = None) -> Any:
    """The class that a dotted path names: a method, backbone, transform or score (with `group`: that) inside farout.

    Raises ConfigError.
    """
    wanted: dict[str, type] = {each: locate(KINDS[each]) for each in ([group] if group else KINDS)}
    try:
        kind = locate(target)
    except (ImportError, AttributeError, ValueError, TypeError):
        raise ConfigError(f"_target_={target} names no class: check the configuration file") from None
    if inspect.isclass(kind) and issubclass(kind, tuple(wanted.values())) and kind.__module__.startswith("farout."):
        return kind
    kinds = " or ".join(f"farout.{kind.__module__.split('.')[1]}.{kind.__name__}" for kind in wanted.values())
    raise ConfigError(
        f"{group or 'its'}._target_={target} is no {_NAMES.get(group or '', 'class')} of farout, and nothing else is "
        f"built: name a subclass of {kinds} below src/farout"
    )


_NAMES = {"method": "training method", "backbone": "network", "transform": "transform", "score": "score"}


def signature_of(target: str, group: str | None = None) -> dict[str, Any]:
    """Constructor argument names and types of a class; raises ConfigError as `class_of`."""
    kind = class_of(target, group)
    try:
        hints = get_type_hints(kind.__init__)
        names = list(inspect.signature(kind).parameters)
    except (TypeError, ValueError, NameError):
        raise ConfigError(f"_target_={target} is no class that can be built: check the configuration file") from None
    wanted = {**{name: hints.get(name, Any) for name in names}, **_common(kind)}
    return {name: kind.type if isinstance(kind, dataclasses.InitVar) else kind for name, kind in wanted.items()}


def _common(kind: Any) -> Mapping[str, Any]:
    """Names and types of what every class of a kind takes besides its own arguments; null or false: as without."""
    found: Mapping[str, Any] = getattr(kind, "common", {})
    return {name: wanted for name, wanted in found.items() if name not in inspect.signature(kind).parameters}


def component(values: Any, where: str, supplied: Sequence[str] = ()) -> Component:
    """A component of a group, e.g. {name, _target_, arguments...}; `supplied` arguments come from the code.

    `where` begins with the group, which says what kind of class it must be.
    """
    mapping = _mapping(values, where)
    target = coerce(mapping.pop("_target_", None), str, f"{where}._target_")
    name = coerce(mapping.pop("name", where.rsplit(".", 1)[-1]), str, f"{where}.name")
    signature = signature_of(target, where.partition(".")[0])
    wanted = {key: kind for key, kind in signature.items() if key not in supplied}
    strange = [f"{where}.{key}" for key in mapping if key not in wanted]
    if strange:
        raise unknown(strange, f"{where}={name}", list(wanted))
    arguments = {key: coerce(value, wanted[key], f"{where}.{key}") for key, value in mapping.items()}
    unset = {key for key in _common(locate(target)) if arguments.get(key) in (None, False)}  # as in older records
    return Component(name, target, {key: value for key, value in arguments.items() if key not in unset})
