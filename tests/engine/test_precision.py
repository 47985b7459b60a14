"""fp32 and TF32 on CUDA, by the switches that PyTorch has for them."""

from collections.abc import Iterator

import pytest
import torch

from farout.engine import precision
from farout.engine.precision import allow_tf32, full_fp32, tf32_allowed


def switches() -> tuple[object, ...]:
    """Everything that says so, in both of PyTorch's ways; reading must not fail either."""
    return (
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision() != "highest",
        precision._now(),
    )


OFF, ON, AS_TORCH_STARTS = (False, False, False, (False,) * 2), (True, True, True, (True,) * 2), (True, False, False)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = precision._now()
    yield
    precision._set(*before)


def test_both_kinds_of_switches_agree() -> None:
    for allowed, expected in ((True, ON), (False, OFF), (True, ON)):
        allow_tf32(allowed)
        assert switches() == expected and tf32_allowed() == allowed


def test_full_fp32_is_for_a_while() -> None:
    precision._set(True, False)
    with full_fp32():
        assert switches() == OFF
    assert switches() == (*AS_TORCH_STARTS, (True, False))
