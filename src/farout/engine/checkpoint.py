"""Files that are either whole or absent: training state, finished weights, JSON records."""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from farout.errors import FaroutError
from farout.files import write_bytes

__all__ = [
    "DamagedState",
    "load_state",
    "load_weights",
    "on_cpu",
    "read_state",
    "save_state",
    "save_weights",
    "weights_content",
]


class DamagedState(FaroutError):
    """A training state that cannot be read, or is not what was written."""


CHECKSUM = "sha256"  # the key in a state under which its own hash stands


def weights_content(model: nn.Module) -> bytes:
    """Finished weights as a safetensors file has them (contiguous copies on the CPU, official key order)."""
    return save({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()})


def save_weights(path: Path, model: nn.Module) -> None:
    """Write finished weights as safetensors."""
    write_bytes(path, weights_content(model))


def load_weights(path: Path, model: nn.Module, may_lack: Sequence[str] = ()) -> None:
    """Load finished weights strictly; a mismatch or damage names the file.

    Tensors whose names begin with one of `may_lack` stay as they are where the file has none.
    """
    kept = {key: value for key, value in model.state_dict().items() if key.startswith(tuple(may_lack))}
    try:
        model.load_state_dict({**kept, **load_file(path)})
    except (SafetensorError, OSError) as error:
        raise FaroutError(f"{path} cannot be read ({error}): train or import this run again") from None
    except (RuntimeError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise FaroutError(f"{path} does not fit this network ({first}): give the run it belongs to") from None


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Training state (tensors, numbers, strings) as one atomic file that loads without unpickling code.

    It carries a hash of its content, because neither torch nor most disks notice a flipped bit.
    """
    content = io.BytesIO()  # torch's own writer hides a full disk behind an error of its format
    here = on_cpu(state)
    torch.save({**here, CHECKSUM: state_hash(here)}, content)
    with content.getbuffer() as view:  # let go at once: of one that an error holds, Python 3.12.1 dies
        write_bytes(path, view)


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a training state back onto `device`; raises DamagedState for what is not as it was written."""
    return read_state(path, device)[0]


def read_state(path: Path, device: torch.device) -> tuple[dict[str, Any], bool]:
    """As `load_state`, and whether the state had a hash of its own: those of older versions had none.

    Raises DamagedState.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        claimed = state.pop(CHECKSUM, None)
        sound = _archive_is_sound(path) if claimed is None else claimed == state_hash(state)
    except Exception as error:
        raise DamagedState(
            f"{path} cannot be read ({type(error).__name__}): remove it to start this run afresh"
        ) from None
    if not sound:
        raise DamagedState(f"{path} is damaged (its checksum differs): remove it to start this run afresh")
    return state, claimed is not None


def state_hash(state: Mapping[str, Any]) -> str:
    """Hash of everything in a state: names, order, numbers, and of tensors type, shape and bits (not their layout)."""
    digest = hashlib.sha256()
    _feed(digest, state)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}\n".encode())
        for key, part in value.items():
            digest.update(f"{key!r}\n".encode())
            _feed(digest, part)
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)}\n".encode())
        for part in value:
            _feed(digest, part)
    else:
        digest.update(f"{value!r}\n".encode())


def on_cpu(value: Any) -> Any:
    """The same with all tensors on the CPU, copied once for both the hash and the file."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: on_cpu(part) for key, part in value.items()}
    return [on_cpu(part) for part in value] if isinstance(value, list) else value


def _archive_is_sound(path: Path) -> bool:
    """What torch.save writes is a zip archive: its own checksums, which torch never looks at."""
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None
