"""Files that are either whole or absent: training state, finished weights, JSON records."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from farout.errors import FaroutError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a neighbouring temporary file, flush it to disk, then rename it over `path`.

    Killed at any moment, `path` holds the old content or the new, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented for people."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def load_json(path: Path) -> Any:
    """Read a JSON file; a damaged one is a one-line error that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FaroutError(f"{path} is not valid JSON ({error}): remove it and run the command again") from None


def save_weights(path: Path, model: nn.Module) -> None:
    """Finished weights as safetensors (contiguous copies on the CPU, official key order)."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(state, temporary))


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
    write_atomically(path, lambda temporary: torch.save(state, temporary))


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
