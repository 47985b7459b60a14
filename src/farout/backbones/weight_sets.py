"""Sets of weights in what a file of weights holds: in wrapping dicts, beside averages of themselves, behind prefixes.

A training script saves more than a network: an optimiser, an average of the weights (EMA, SWA, a mean teacher), the
weights of a loss. Nothing here decides what fits a network; it lists what there is, the likeliest first.
"""

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

_DEPTH = 8  # of dicts within dicts that are looked into, and of dotted names
_DICTS = 10_000  # that are looked into at all
# Where code bases put the weights that they train, the likeliest first; "" is the file's top.
_USUAL = ["", "state_dict", "model_state_dict", "model", "net", "network", "module", "state", "weights", "params"]
_USUAL += ["student", "backbone", "encoder"]
# What is called so is an average of the trained weights, or follows them.
_AVERAGED = re.compile(
    r"(^|[^a-z])(ema|swa|teacher|averaged?|avg|shadow|momentum_encoder|encoder_k|target_(net|network|model|encoder))([^a-z]|$)",
    re.IGNORECASE,
)
_AVERAGED_CAMEL = re.compile(r"EMA|SWA|^ema[A-Z]|[a-z]Ema([^a-z]|$)")


@dataclass(frozen=True)
class WeightSet:
    """Tensors by their names, as a file holds them together.

    `path` are the dotted keys of the dicts around them and `prefix` what was taken off their names ("" or ending in a
    dot); `outside` are the names beside them in the same dict that do not begin with the prefix.
    """

    path: str
    averaged: bool
    state: Mapping[str, Tensor] = field(repr=False)
    prefix: str = ""
    outside: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What chooses it: path and prefix, dotted; "" for all that the file holds."""
        return ".".join(part for part in (self.path, self.prefix.rstrip(".")) if part)

    @property
    def usual(self) -> bool:
        """Whether it lies where trained weights usually do."""
        return _rank(self.path) < len(_USUAL)

    def behind(self, prefix: str) -> "WeightSet":
        """The tensors whose names begin with `prefix`, by the rest of their names."""
        inside = {name.removeprefix(prefix): value for name, value in self.state.items() if name.startswith(prefix)}
        outside = tuple(name for name in self.state if not name.startswith(prefix))
        return replace(self, state=inside, prefix=self.prefix + prefix, outside=self.outside + outside)

    def prefixes(self, at_least: float) -> list[str]:
        """Dotted beginnings that at least so many names share, the shortest ("") first."""
        counts: Counter[str] = Counter()
        for name in self.state:
            dots = [place for place, letter in enumerate(name[:1000]) if letter == "."]
            counts.update(name[: place + 1] for place in dots[:_DEPTH])
        return ["", *sorted((prefix for prefix, count in counts.items() if count >= at_least), key=len)]


def weight_sets(content: Any) -> list[WeightSet]:
    """What torch.load or safetensors returned, as sets of weights: the trained ones first, then averages of them.

    A set is a dict of tensors at any depth, parted where some of its names say that they are averages. Dicts without a
    tensor called weight (prototypes, a best accuracy) count only where there is nothing else.
    """
    found = [part for path, state in _tables(content) for part in _parted(path, state)]
    real = [part for part in found if any(name.endswith("weight") for name in part.state)]
    return sorted(real or found, key=lambda part: (part.averaged, _rank(part.path)))


def narrowed(sets: list[WeightSet], label: str) -> list[WeightSet]:
    """Those of the sets, or the parts of them, that a label (as of `WeightSet.label`) means; [] where none does."""
    label = label.strip(".")
    found = []
    for part in sets:
        rest = label.removeprefix(part.path).lstrip(".") if _within(label, part.path) else None
        if _within(part.path, label):
            found.append(part)
        elif rest and any(name.startswith(rest + ".") for name in part.state):
            found.append(part.behind(rest + "."))
    return found


def _within(path: str, outer: str) -> bool:
    return outer in ("", path) or path.startswith(outer + ".")


def _rank(path: str) -> int:
    first = path.partition(".")[0]
    return _USUAL.index(first) if first in _USUAL else len(_USUAL)


def _tables(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Dicts with tensors and their paths; a hostile file may hold itself, or the same dict a million times."""
    waiting: deque[tuple[str, Any, tuple[int, ...]]] = deque([("", content, ())])
    for _ in range(_DICTS):
        if not waiting:
            return
        path, value, around = waiting.popleft()
        if not isinstance(value, Mapping) or id(value) in around or len(around) > _DEPTH:
            continue
        named = {name: item for name, item in value.items() if isinstance(name, str)}
        state = {name: item for name, item in named.items() if isinstance(item, Tensor)}
        if state and (len(state) == len(value) or any(name.endswith("weight") for name in state)):
            yield path, state
        inner = ((name, item) for name, item in named.items() if isinstance(item, Mapping))
        waiting += [(f"{path}.{name}" if path else name, item, (*around, id(value))) for name, item in inner]


def _parted(path: str, state: dict[str, Tensor]) -> Iterator[WeightSet]:
    """Averaged and trained weights apart, where one dict holds both (`student.conv.weight`, `teacher.conv.weight`)."""
    if any(map(_says_averaged, path.split("."))):
        yield WeightSet(path, True, state)
        return
    averaged = {name for name in state if any(map(_says_averaged, name.split(".")[:-1]))}
    for wanted in (False, True):
        part = {name: value for name, value in state.items() if (name in averaged) is wanted}
        if part:
            yield WeightSet(path, wanted, part)


def _says_averaged(word: str) -> bool:
    return bool(_AVERAGED.search(word) or _AVERAGED_CAMEL.search(word))
