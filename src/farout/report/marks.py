"""Short hashes that say which entry of results.json a file of scores belongs to.

An entry's `depends_on` says what its figures follow from: the weights, the images of each set, the arguments of each
score and what it was fitted on. Files written before that have no marks, and their arrays are taken as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARKS = "belongs_to"  # the array of a score file that holds the marks, as JSON
ID = "id"

Depends = Mapping[str, Any]


def marks_of(depends: Depends, name: str) -> dict[str, Any]:
    """{"set": mark, "scores": {score: mark}} of one set ("id", an OOD set, "control:*") in an entry's `depends_on`."""
    images = depends["ood"].get(name, depends["id"])
    return {
        "set": _mark([name, depends["weights"], depends["references"], images]),
        "scores": {score: _mark(facts) for score, facts in depends["scores"].items()},
    }


def _mark(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def encode_marks(marks: Mapping[str, Any]) -> NDArray[Any]:
    """Marks as an array that needs no pickle."""
    return np.array(json.dumps(marks, sort_keys=True))


def read_marks(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
    """The marks among the arrays of a file; None where it has none, or none that can be read."""
    try:
        found = json.loads(str(arrays[MARKS]))
        return found if {"set", "scores"} <= found.keys() else None
    except (KeyError, ValueError, AttributeError):
        return None


def matching_arrays(arrays: Mapping[str, NDArray[Any]], marks: Mapping[str, Any] | None) -> dict[str, NDArray[Any]]:
    """The arrays of a file that belong to what `marks` name, without the marks themselves; all where none are known."""
    plain, own = {key: values for key, values in arrays.items() if key != MARKS}, read_marks(arrays)
    if own is None or marks is None:
        return plain
    if own["set"] != marks["set"]:
        return {}
    of_scores = own["scores"]
    return {key: x for key, x in plain.items() if key not in of_scores or of_scores[key] == marks["scores"].get(key)}
