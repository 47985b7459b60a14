"""What "fp32" means on CUDA: PyTorch lets convolutions round their inputs to TF32 (10 bits of mantissa) unless told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_CUDNN: Any = torch.backends.cudnn  # whose newer settings its type stubs lack


def allow_tf32(allowed: bool) -> None:
    """Convolutions and matrix products of float32 tensors in TF32, or in float32 proper; CPUs know no difference."""
    _set(allowed, allowed)


def tf32_allowed() -> bool:
    """Whether float32 convolutions or matrix products may run in TF32 now."""
    return any(_now())


@contextmanager
def full_fp32() -> Iterator[None]:
    """float32 proper within, as it was afterwards."""
    before = _now()
    _set(False, False)
    try:
        yield
    finally:
        _set(*before)


def _now() -> tuple[bool, bool]:
    """TF32 in (convolutions, matrix products); PyTorch's own default is the first alone."""
    return (
        _CUDNN.conv.fp32_precision == "tf32",
        torch.backends.cuda.matmul.fp32_precision == "tf32",
    )


def _set(convolutions: bool, products: bool) -> None:
    """Say it in both of PyTorch's ways, in agreement: whoever reads one after only the other was set gets an error."""
    _CUDNN.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_tf32 = products
    _CUDNN.conv.fp32_precision = _CUDNN.rnn.fp32_precision = _word(convolutions)
    torch.backends.cuda.matmul.fp32_precision = _word(products)


def _word(tf32: bool) -> str:
    return "tf32" if tf32 else "ieee"


# What processors call their bf16 instructions: x86 in vectors and in matrices, ARM.
BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")


def has_bf16_instructions() -> bool:
    """Whether this processor computes in bf16 itself; others emulate it, many times slower than float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:  # PyTorch of before, which asks about x86 alone
        return bool(torch.cpu._is_avx512_bf16_supported())
    known = capabilities()
    return any(known.get(name) for name in BF16_CAPABILITIES)
