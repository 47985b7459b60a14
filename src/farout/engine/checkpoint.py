"""Files that are either whole or absent: training state, finished weights, JSON records."""

import io
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from farout.errors import FaroutError
from farout.files import load_json, save_json, write_atomically, write_bytes

__all__ = [
    "load_json",
    "load_state",
    "load_weights",
    "save_json",
    "save_state",
    "save_weights",
    "tensors_equal",
    "write_atomically",
]


def save_weights(path: Path, model: nn.Module) -> None:
    """Finished weights as safetensors (contiguous copies on the CPU, official key order)."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_bytes(path, save(state))


def load_weights(path: Path, model: nn.Module) -> None:
    """Load finished weights strictly; a mismatch or damage names the file."""
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise FaroutError(f"{path} cannot be read ({error}): train or import this run again") from None
    except (RuntimeError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise FaroutError(f"{path} does not fit this network ({first}): give the run it belongs to") from None


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Training state (tensors, numbers, strings) as one atomic file that loads without unpickling code."""
    content = io.BytesIO()  # torch's own writer hides a full disk behind an error of its format
    torch.save(state, content)
    write_bytes(path, content.getbuffer())


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a training state back onto `device`."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise FaroutError(
            f"{path} cannot be read ({type(error).__name__}): remove it to start this run afresh"
        ) from None
    return state


def tensors_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bitwise equality of two state dicts."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
