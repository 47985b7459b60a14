"""A run that another machine finished, given as run.json and weights, as a finished run of ours: how weights travel."""

import datetime
import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from farout.config.coerce import component
from farout.engine.progress import say
from farout.errors import ConfigError, FaroutError
from farout.files import BUILDING, new_file, save_json, whole_folder, writing
from farout.runs.environment import commit
from farout.runs.lineage import parent_of
from farout.runs.records import DamagedRun, is_run_name
from farout.runs.recovery import usual_target
from farout.runs.run import Run, name_of, open_run

_AGAIN = "copy it again from the machine that trained it"
LARGEST_GIB = 8  # of a file: networks here have less than one
ROUNDED = (torch.float16, torch.bfloat16)  # what numbers of float32 may have been rounded to on the way


@dataclass(frozen=True)
class Travelled:
    """A file of a run as it arrived.

    Attributes:
        tensors: by name, in the types that the network has.
        arrived: by name, in the types that the file has.
        content: the file to write: what arrived, or the same values in float32.
        sha256: of the file as it arrived; `recorded` is the one that training wrote down, None where it wrote none.
        rounded: how many tensors were rounded to which type, e.g. {"float16": 41}.
    """

    tensors: dict[str, Tensor]
    arrived: dict[str, Tensor]
    content: bytes
    sha256: str
    recorded: str | None
    rounded: dict[str, int] = field(default_factory=dict)


def adopt(folder: Path, outputs: Path, note: str = "") -> Run:
    """The run of a folder with run.json and weights, at home in outputs/runs/ under its own name.

    Its fingerprint must follow from what run.json says, its weights must fit the network described there and have the
    hash that training wrote down. Tensors rounded to 16 bits are taken as float32; such a file cannot have that hash,
    so the record keeps both. What is there already stays; adopting it once more is harmless. Evaluations do not travel.

    Raises FaroutError for a folder that is damaged or none of ours, and where other weights have the name already.
    """
    source = _source(folder)
    files = _files(source)
    run = Run(outputs / "runs" / source.name, source.identity)
    with writing(run.folder):
        run.folder.parent.mkdir(parents=True, exist_ok=True)
    with run.locked():
        if run.folder.exists():
            _check_same(run, files)
            say(f"{run.folder} is there already, with these weights: nothing was changed")
            return run
        _tell(files)
        _write(run, source.record, files, note)
    mark = run.identity["parent"]
    if mark is not None and parent_of(mark, run) is None:
        say(f"it started from a run ({mark}) that is not in {run.folder.parent}; it can be evaluated without")
    return run


def _source(folder: Path) -> Run:
    """The run that a folder holds; raises FaroutError where its name, its record and its identity disagree."""
    path = folder.resolve()
    if not (path / "run.json").is_file():
        raise FaroutError(f"{folder} holds no run.json: give the folder of a finished run")
    try:
        run = open_run(path)
        run.transform()
    except DamagedRun as error:
        raise FaroutError(f"{folder}/run.json is damaged ({error.reason}): {_AGAIN}") from None
    name, identity = run.record.get("run"), run.identity
    ours = name.startswith("imported-") if _is_import(identity) and isinstance(name, str) else name == name_of(identity)
    if not isinstance(name, str) or not is_run_name(name) or not ours:
        wanted = "imported-NAME" if _is_import(identity) else name_of(identity)
        raise FaroutError(f"{folder}/run.json calls itself {name!r}, but what it describes is {wanted}: {_AGAIN}")
    if path.name != name:
        raise FaroutError(f"{folder} holds the run {name}: call the folder that, or give the one you meant")
    return run


def _is_import(identity: Mapping[str, Any]) -> bool:
    return bool(identity["method"]["name"] == "imported")


def _files(source: Run) -> dict[str, Travelled]:
    """The weights, and what the method learnt where it learns, by file name; raises FaroutError."""
    files = {}
    for path, wanted in ((source.weights, _network(source)), (source.method_state, _learnt(source))):
        if wanted:
            files[path.name] = _read(path, wanted, (source.record.get("files") or {}).get(path.name))
        elif path.exists():
            raise FaroutError(f"{path} is there, but {source.identity['method']['name']} learns nothing: {_AGAIN}")
    return files


def _network(source: Run) -> dict[str, Tensor]:
    """The tensors of the network that run.json describes, without memory."""
    try:
        with torch.device("meta"):
            return source.backbone().state_dict()
    except DamagedRun as error:
        raise FaroutError(f"{source.folder}/run.json is damaged ({error.reason}): {_AGAIN}") from None


def _learnt(source: Run) -> dict[str, Tensor]:
    """The same of the method: empty for most, and for weights of others, which no method trained here."""
    facts, targets = source.identity["method"], source.record.get("targets") or {}
    target = targets.get("method") or usual_target("method", facts["name"])
    if target is None or _is_import(source.identity):
        return {}
    try:
        with torch.device("meta"):
            built: torch.nn.Module = component({**facts, "_target_": target}, "method").build()
    except (ConfigError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise FaroutError(
            f"{source.folder}/run.json is damaged (its method cannot be built: {first}): {_AGAIN}"
        ) from None
    return built.state_dict()


def _read(path: Path, wanted: Mapping[str, Tensor], recorded: str | None) -> Travelled:
    """A file of tensors that must have these names, shapes and types, or be rounded to 16 bits."""
    try:
        if path.stat().st_size > LARGEST_GIB * 2**30:
            raise FaroutError(f"{path} has more than {LARGEST_GIB} GiB, more than any network here: {_AGAIN}")
        content = path.read_bytes()
        arrived = load(content)
    except FileNotFoundError:
        raise FaroutError(f"{path.parent} holds no {path.name}: {_AGAIN}, once the run is finished") from None
    except OSError as error:
        raise FaroutError(f"{path} cannot be read ({error.strerror}): {_AGAIN}") from None
    except SafetensorError as error:
        raise FaroutError(f"{path} is damaged ({str(error).splitlines()[0]}): {_AGAIN}") from None
    wrong = _misfit(arrived, wanted)
    if wrong:
        raise FaroutError(f"{path} does not fit what run.json describes ({wrong}): {_AGAIN}")
    kinds = Counter(
        str(value.dtype).removeprefix("torch.") for key, value in arrived.items() if _is_rounded(value, wanted[key])
    )
    sha256 = hashlib.sha256(content).hexdigest()
    if not kinds and recorded not in (None, sha256):
        raise FaroutError(f"{path} has the hash {sha256[:12]}, not {str(recorded)[:12]} as training left it: {_AGAIN}")
    tensors = {key: value.to(wanted[key].dtype) for key, value in arrived.items()}
    return Travelled(tensors, arrived, save(tensors) if kinds else content, sha256, recorded, dict(kinds))


def _misfit(arrived: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """What keeps tensors from being the wanted ones; None where they can be.

    A wanted tensor without elements (prototypes, a replay buffer) has the shape that data gave it.
    """
    for key in sorted(arrived.keys() ^ wanted.keys()):
        return f"{key} is {'missing' if key in wanted else 'unknown'}"
    for key, value in arrived.items():
        ours = wanted[key]
        if ours.numel() and value.shape != ours.shape:
            return f"{key} is {tuple(value.shape)}, not {tuple(ours.shape)}"
        if value.dtype != ours.dtype and not _is_rounded(value, ours):
            return f"{key} is {value.dtype}, not {ours.dtype}".replace("torch.", "")
        if value.is_floating_point() and not value.isfinite().all():
            return f"{key} has NaN or infinity"
    return None


def _is_rounded(value: Tensor, wanted: Tensor) -> bool:
    return value.dtype in ROUNDED and wanted.dtype == torch.float32


def _check_same(run: Run, files: Mapping[str, Travelled]) -> None:
    """Raise FaroutError unless the run that is there has these weights: as they are, or before they were rounded."""
    try:
        if not run.finished or open_run(run.folder).identity != run.identity:
            raise FaroutError(f"{run.folder} is there and not finished: move it away, or give another --outputs")
        for name, file in files.items():
            ours = load((run.folder / name).read_bytes())
            same = ours.keys() == file.arrived.keys() and all(
                torch.equal(ours[key].to(value.dtype), value) for key, value in file.arrived.items()
            )
            if not same:
                raise FaroutError(f"{run.folder} holds other weights: move it away, or give another --outputs")
    except (DamagedRun, SafetensorError, OSError) as error:
        reason = getattr(error, "reason", None) or str(error).splitlines()[0]
        raise FaroutError(f"{run.folder} is there and damaged ({reason}): move it away") from None


def _tell(files: Mapping[str, Travelled]) -> None:
    for name, file in files.items():
        if not file.rounded:
            continue
        counts = " and ".join(
            f"{count} of {len(file.tensors)} tensors to {kind}" for kind, count in file.rounded.items()
        )
        hashed = (
            "training wrote down no hash" if file.recorded is None else f"so it is not {file.recorded[:12]} any more"
        )
        say(f"{name} was rounded on the way ({counts}) and taken as float32; its hash is {file.sha256[:12]}, {hashed}")


def _write(run: Run, record: dict[str, Any], files: Mapping[str, Travelled], note: str) -> None:
    """The whole folder, or none of it."""
    for debris in run.folder.parent.glob(f".{run.name}{BUILDING}*"):  # of killed processes: the lock keeps others out
        shutil.rmtree(debris, ignore_errors=True)
    arrival = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "note": note,
        "files": [
            {"name": name, "sha256": file.sha256, "recorded": file.recorded, "rounded": file.rounded}
            for name, file in files.items()
        ],
    }
    hashes = {name: hashlib.sha256(file.content).hexdigest() for name, file in files.items()}
    whole = {**record, "files": hashes, "adopted": [*(record.get("adopted") or []), arrival]}
    with writing(run.folder), whole_folder(run.folder) as place:
        save_json(place / "run.json", whole)
        for name, file in files.items():
            with new_file(place / name) as out:
                out.write(file.content)
