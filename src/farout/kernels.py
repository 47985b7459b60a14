"""Where the project's own GPU kernels run."""

import importlib.util

import torch


def runs_triton(device: torch.device) -> bool:
    """Whether Triton's kernels run there: on NVIDIA's GPUs, where PyTorch's builds for Linux bring Triton along."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None
