"""Logits and features that any framework saved, one .npz a data set, as outputs."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from farout.errors import FaroutError, MissingDataError
from farout.scores import Head, Outputs

ID_TEST, ID_TRAIN, HEAD = "id_test", "id_train", "head"
ARRAYS = "logits (N, K) and features (N, D), with labels (N,) where there are any"


@dataclass(frozen=True)
class SavedOutputs:
    """The files of a folder: id_test.npz, the OOD sets by their names, and where they are there id_train and head."""

    id_test: Outputs
    ood: dict[str, Outputs]
    train: Outputs | None
    head: Head | None


def read_outputs(folder: Path) -> SavedOutputs:
    """All .npz files of a folder; nothing in them is unpickled.

    `head.npz` holds weight (K, D) and bias (K,) of the last linear layer.
    Raises MissingDataError where id_test or any OOD set is missing, FaroutError for what does not fit.
    """
    files = {file.stem: file for file in sorted(folder.glob("*.npz"))}
    ood = [name for name in files if name not in (ID_TEST, ID_TRAIN, HEAD)]
    if ID_TEST not in files or not ood:
        missing = f"{ID_TEST}.npz" if ID_TEST not in files else "an OOD set, NAME.npz"
        raise MissingDataError(f"{folder} has no {missing}: save {ARRAYS} of each set, one file a set")
    found = {name: _outputs(file) for name, file in files.items() if name != HEAD}
    head = _head(files[HEAD]) if HEAD in files else None
    for name, outputs in found.items():
        _check_widths(outputs, found[ID_TEST], head, files[name])
    return SavedOutputs(found[ID_TEST], {name: found[name] for name in ood}, found.get(ID_TRAIN), head)


def _outputs(file: Path) -> Outputs:
    arrays = _read(file)
    if missing := [name for name in ("logits", "features") if name not in arrays]:
        raise FaroutError(f"{file} has no {missing[0]}: save {ARRAYS}")
    logits, features = _matrix(arrays, "logits", file), _matrix(arrays, "features", file)
    labels = arrays.get("labels")
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        raise FaroutError(f"{file}: labels are {labels.dtype} {labels.shape}: save whole numbers (N,)")
    try:
        return Outputs(logits, features, None if labels is None else torch.from_numpy(labels.astype(np.int64)))
    except FaroutError as error:
        raise FaroutError(f"{file}: {error}") from None


def _head(file: Path) -> Head:
    arrays = _read(file)
    if not {"weight", "bias"} <= arrays.keys():
        raise FaroutError(f"{file} is no linear layer: save weight (K, D) and bias (K,)")
    return Head(_matrix(arrays, "weight", file), torch.from_numpy(arrays["bias"].astype(np.float32)))


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise FaroutError(f"{file} cannot be read ({reason}): save it again by numpy.savez") from None


def _matrix(arrays: dict[str, np.ndarray], name: str, file: Path) -> Tensor:
    array = arrays[name]
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise FaroutError(f"{file}: {name} are {array.dtype} {array.shape}: save floats, a row an image")
    if not np.isfinite(array).all():
        raise FaroutError(f"{file}: {name} hold NaN or infinite values: the network is broken")
    return torch.from_numpy(np.ascontiguousarray(array))


def _check_widths(outputs: Outputs, id_test: Outputs, head: Head | None, file: Path) -> None:
    widths = outputs.features.shape[1], outputs.logits.shape[1]
    wanted = id_test.features.shape[1], id_test.logits.shape[1]
    if widths != wanted:
        raise FaroutError(f"{file}: {widths[0]} features and {widths[1]} logits, where id_test has {wanted}")
    if head is not None and (tuple(head.weight.shape), len(head.bias)) != (wanted[::-1], wanted[1]):
        raise FaroutError(
            f"head.npz: weight {tuple(head.weight.shape)} does not make {wanted[1]} logits of {wanted[0]}"
        )
