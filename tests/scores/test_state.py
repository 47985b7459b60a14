"""A score's state as JSON and tensors, and back."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from farout.errors import FaroutError
from farout.scores import Head, Outputs, Score
from farout.scores.energy import Energy
from farout.scores.state import decode, encode


@dataclass(frozen=True, slots=True)
class Slotted:
    """Frozen, without a __dict__, and with a field that its constructor does not take."""

    values: Tensor
    count: int = field(init=False, default=3)


class Holder(Score):
    """Keeps whatever it is given."""

    name = "holder"

    def __init__(self) -> None:
        self.kept: Any = None

    def __call__(self, outputs: Outputs) -> Tensor:
        return outputs.logits.amax(1)


def there_and_back(value: Any) -> Any:
    """`value` after a trip through JSON."""
    score = Holder()
    score.kept = value
    state, tensors = encode(score)
    fresh = Holder()
    decode(fresh, json.loads(json.dumps(state)), tensors)
    return fresh.kept


@pytest.mark.parametrize(
    "value", [None, True, 3, -0.1, 1e-300, float("inf"), "ä", [], (), {}, [1, (2.5, {"a": [None]})]]
)
def test_plain_values(value: Any) -> None:
    found = there_and_back(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_tensors_keep_their_bits(dtype: torch.dtype) -> None:
    tensor = (100 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))).to(dtype)
    for value in (tensor, tensor.T, tensor[:0], tensor[1, 2]):
        found = there_and_back(value)
        assert found.dtype == dtype and found.shape == value.shape and torch.equal(found, value)
        assert (found.is_contiguous() and found.data_ptr() != value.data_ptr()) or not value.numel()


def test_arrays_dataclasses_and_scores() -> None:
    array = there_and_back(np.arange(6.0).reshape(2, 3).T)
    assert isinstance(array, np.ndarray) and np.array_equal(array, np.arange(6.0).reshape(2, 3).T)
    assert there_and_back(np.float64(0.1)) == 0.1
    head, threshold = there_and_back((Head(torch.ones(2, 3), torch.zeros(2)), 0.5))
    assert isinstance(head, Head) and torch.equal(head.weight, torch.ones(2, 3)) and threshold == 0.5
    slotted = there_and_back(Slotted(torch.ones(2)))
    assert isinstance(slotted, Slotted) and slotted.count == 3 and torch.equal(slotted.values, torch.ones(2))
    energy = there_and_back([Energy(2.0)])[0]
    assert isinstance(energy, Energy) and (energy.temperature, energy.name) == (2, "energy_t2")


@pytest.mark.parametrize(
    "value", [len, {1: 2}, {1, 2}, object(), torch.nn.Linear(1, 1), np.array([None]), [1, [print]]]
)
def test_what_is_no_data_is_refused_by_name(value: Any) -> None:
    with pytest.raises(FaroutError, match=r"score holder cannot be saved: kept(\.1\.0)? is a ") as caught:
        there_and_back(value)
    assert "\n" not in str(caught.value)


def test_states_of_other_scores_are_refused() -> None:
    state, tensors = encode(Energy())
    with pytest.raises(FaroutError, match="not one of score holder"):
        decode(Holder(), state, tensors)
    for damaged in ({"kept": {"tensor": "x"}}, {"kept": {"set": []}}, {"kept": {"a": 1, "b": 2}}):
        with pytest.raises(FaroutError, match="damaged"):
            decode(Holder(), damaged, {})
    for name, message in (("builtins:object", "no part of a score"), ("this:s", "not part of farout")):
        with pytest.raises(FaroutError, match=message):
            decode(Holder(), {"kept": {"object": name, "attributes": {}}}, {})
