"""Runs: the same overrides lead to the same folder."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from farout.backbones import Backbone
from farout.backbones.imagenet_resnet import weights_mark
from farout.config.coerce import Component, component
from farout.config.compose import compose_after, parent_settings
from farout.config.settings import IdData, Options, Precision, Settings, defaults_of
from farout.data.transform import Transform
from farout.engine.checkpoint import load_weights
from farout.engine.progress import say
from farout.engine.states import has_states
from farout.errors import ConfigError, FaroutError, UnwritableError, shorten
from farout.files import remove_leftovers, save_json, writing
from farout.methods import Method
from farout.runs.locks import lock_file
from farout.runs.overrides import check_agrees, record_as_overrides, recorded_scale
from farout.runs.precision import resolve_precision
from farout.runs.records import DamagedRun, check_run_name, read_record

PRECISIONS = get_args(Precision)
LATER = defaults_of(Options, only_later=True)


@dataclass(frozen=True)
class Run:
    """A folder with everything of one training: run.json, checkpoint.pt while it runs, then weights and results."""

    folder: Path
    identity: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def method_state(self) -> Path:
        """What the method itself learnt (prototypes), where it has any."""
        return self.folder / "method.safetensors"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def finished(self) -> bool:
        """Whether training is done: weights are written once, whole, at the end."""
        return self.weights.exists()

    @property
    def record(self) -> dict[str, Any]:
        """run.json: identity, data, how it was trained; raises DamagedRun."""
        return read_record(self.folder)

    def write_record(self, **parts: Any) -> None:
        """Create or extend run.json."""
        path = self.folder / "run.json"
        known = self.record if path.exists() else {"run": self.name, "identity": self.identity}
        save_json(path, {**known, **parts})

    @property
    def begun(self) -> bool:
        """Whether anything of a training is here."""
        return (self.folder / "run.json").exists() or self.finished or has_states(self.checkpoint)

    @property
    def writable(self) -> bool:
        """Whether files can be put into the folder; not on a disk that is only read."""
        return os.access(self.folder, os.W_OK)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time works on a run; others wait and then find it done.

        A run on a disk that is only read needs no lock.
        """
        lock = self._lock()
        try:
            # Whoever holds the lock is the only writer: unfinished files are those of a killed process.
            if lock is not None and self.folder.is_dir():
                folders = [path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]
                remove_leftovers([self.folder, *folders], sole_writer=True)
            yield
        finally:
            if lock is not None:
                lock.release()

    def _lock(self) -> FileLock | None:
        path = lock_file(self.folder)
        try:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                return self._acquired(FileLock(path))
        except UnwritableError:
            if os.access(self.folder.parent, os.W_OK):
                raise
            say(f"  note: {self.folder.parent} is only read, so {self.name} is not locked against other processes")
            return None

    def _acquired(self, lock: FileLock) -> FileLock:
        try:
            lock.acquire(timeout=0.1)
        except Timeout:
            say(f"waiting for another process that works on {self.name}")
            lock.acquire()
        return lock

    def backbone(self) -> Backbone:
        """The network of this run, freshly initialised; raises DamagedRun where run.json describes none."""
        try:
            return build_backbone(self._component("backbone"), self.num_classes)
        except (TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
            raise self._misdescribed("the network cannot be built", error) from None

    def _component(self, group: str) -> Component:
        """A class of ours with its arguments, as run.json names them."""
        try:
            return component({**self.identity[group], "_target_": self.targets[group]}, group)
        except ConfigError as error:
            raise self._misdescribed("what it names cannot be built", error) from None

    def _misdescribed(self, what: str, error: Exception) -> DamagedRun:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return DamagedRun(self.folder / "run.json", f"{what}: {first}")

    @property
    def classifier_trained(self) -> bool:
        """Whether training reached the last linear layer, so that logits mean anything."""
        return bool(self.record.get("classifier_trained", True))

    @property
    def num_classes(self) -> int:
        return int(self.identity["id_data"]["num_classes"])

    @property
    def targets(self) -> dict[str, str]:
        """Which classes to build the network and the transform with."""
        found = self.record.get("targets")
        if found is None:
            raise DamagedRun(self.folder / "run.json", "targets is missing")
        return {group: found[group] for group in ("backbone", "transform")}

    def reading(self) -> dict[str, Any]:
        """How weights and images become outputs: network and transform, with the classes that build them."""
        return {"targets": self.targets, **{key: self.identity[key] for key in ("backbone", "transform", "id_data")}}

    def transform(self) -> Transform:
        """The normalisation and augmentation that this run was trained with."""
        try:
            built: Transform = self._component("transform").build()
        except (TypeError, ValueError, RuntimeError, ConfigError) as error:
            raise self._misdescribed("the transform cannot be built", error) from None
        return built

    def model(self, device: torch.device) -> Backbone:
        """The trained network in evaluation mode, fp32; raises DamagedRun where its files are not what was written."""
        if not self.finished:
            raise FaroutError(f"{self.folder} holds no finished run: repeat its training command to finish it")
        model = self.backbone()
        self.load(model)
        return model.to(device).eval()

    def load(self, model: Backbone) -> None:
        """Fill a network with the trained weights, which must be those that were written; raises DamagedRun."""
        self._load(self.weights, model)

    def start(self, model: Backbone) -> None:
        """Fill a network that shall be trained on; heads that this run's network has not stay fresh.

        Raises DamagedRun.
        """
        self._load(self.weights, model, _prefixes(model))

    def check_start(self, model: Backbone) -> None:
        """Raise ConfigError unless `start` can fill a network of this kind, DamagedRun where nothing could be read."""
        wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        found = _shapes(self.weights)
        lacking = {key for key in wanted.keys() - found.keys() if key.startswith(tuple(_prefixes(model)))}
        if found != {key: shape for key, shape in wanted.items() if key not in lacking}:
            name = self.identity["backbone"]["name"]
            raise ConfigError(f"init_from was trained with backbone={name}, whose tensors are others: choose that one")

    def load_method(self, method: Method) -> None:
        """Fill a method with what it learnt; raises DamagedRun."""
        self._load(self.method_state, method)

    def method_tensors(self) -> dict[str, Tensor]:
        """What the method learnt, by name; raises DamagedRun."""
        self._check_content(self.method_state)
        _shapes(self.method_state)
        return load_file(self.method_state)

    def _load(self, path: Path, module: torch.nn.Module, may_lack: Sequence[str] = ()) -> None:
        self._check_content(path)
        try:
            load_weights(path, module, may_lack)
        except FaroutError as error:
            raise DamagedRun(path, str(error).removeprefix(f"{path} ").rpartition(": ")[0]) from None

    def check_files(self) -> None:
        """Raise DamagedRun where a finished run's files cannot be what training left, without loading any."""
        self.transform()
        with torch.device("meta"):
            wanted = {key: tuple(value.shape) for key, value in self.backbone().state_dict().items()}
        for path in (self.weights, self.method_state):
            if path.exists() or path.name in (self.record.get("files") or {}):
                self._check_content(path)
                found = _shapes(path)
                if path == self.weights and found != wanted:
                    raise DamagedRun(path, "it does not fit the network of run.json")

    def _check_content(self, path: Path) -> None:
        """The hash that training wrote down; versions before wrote none."""
        wanted = (self.record.get("files") or {}).get(path.name)
        if wanted is None:
            return
        if not path.is_file():
            raise DamagedRun(path, "it is missing")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            raise DamagedRun(path, f"its hash is {found[:12]}, not {str(wanted)[:12]} as when it was written")


def _prefixes(model: Backbone) -> list[str]:
    """How tensors of heads begin that a parent need not have."""
    return [f"{name}." for name in model.added_heads]


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file; raises DamagedRun."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DamagedRun(path, str(error).splitlines()[0]) from None


def build_backbone(spec: Component, num_classes: int) -> Backbone:
    """Instantiate a network of the backbone group."""
    built: Backbone = spec.build(num_classes=num_classes)
    return built


def open_run(folder: str | Path) -> Run:
    """The run in a folder that the user named; raises DamagedRun where its run.json is none of ours."""
    path = Path(folder)
    if path.name in ("", ".."):  # a run is known by its folder's name
        path = path.resolve()
    try:
        there = (path / "run.json").is_file()
    except (OSError, ValueError):  # a name that no folder can have
        there = False
    if not there:
        raise FaroutError(f"{shorten(folder, 200)} is not a run folder (it has no run.json): name one of outputs/runs/")
    return Run(path, read_record(path)["identity"])


def run_of(settings: Settings, device: torch.device) -> Run:
    """The run that these settings mean.

    With precision=auto, a run that another device began is taken up in the precision it was begun in. One that is
    finished is found without its parent too, which may have had another precision than it would have here.
    """
    runs = _in_each_precision(settings, device, parent_run(settings, device))
    known = [run for run in runs if run.begun]
    if not known and settings.init_from == "auto":
        parents = _in_each_precision(wanted := parent_settings(settings), device, parent_run(wanted, device))
        if not any(parent.begun for parent in parents):
            orphans = [run for parent in parents for run in _in_each_precision(settings, device, parent)]
            known = [run for run in orphans if run.finished]
    return (known or runs)[0]


def _in_each_precision(settings: Settings, device: torch.device, parent: Run | None) -> list[Run]:
    """The runs that these settings may mean on this device or another, its own precision first."""
    own = resolve_precision(settings, device)
    others = [] if settings.trainer.precision != "auto" else [p for p in PRECISIONS if p != own]
    return [run_in(settings, precision, parent) for precision in (own, *others)]


def parent_run(settings: Settings, device: torch.device) -> Run | None:
    """The run whose weights training starts from; None from scratch."""
    if settings.init_from is None:
        return None
    if settings.init_from == "auto":
        return run_of(parent_settings(settings), device)
    parent = open_run(settings.init_from)
    _check_parent(settings, parent)
    return parent


def _check_parent(settings: Settings, parent: Run) -> None:
    """A named parent must be finished and have the child's network, classes and transform."""
    if not parent.finished:
        raise FaroutError(f"init_from={parent.folder} is not finished: finish it first")
    if parent.num_classes != settings.id_data.num_classes:
        raise ConfigError(f"init_from has {parent.num_classes} classes, id_data={settings.id_data.name} has others")
    for key in ("backbone", "transform"):
        theirs, ours = parent.identity[key], getattr(settings, key).record()
        if _architecture(theirs) != _architecture(ours, but=() if "projection" in theirs else HEAD):
            raise ConfigError(f"init_from was trained with {key}={theirs['name']}: {_remedy(key, theirs, ours)}")


# What may differ between parent and child: augmentation, dropout, and what trains; names do not matter.
VIEWS = ("views", "crop_scale", "crop_ratio", "jitter", "jitter_probability", "grayscale_probability")
FREE = (
    "name",
    "dropout",
    "weights",
    "trainable",
    "freeze_statistics",
    "flip",
    "crop_padding",
    "outlier_augmentation",
    *VIEWS,
)
HEAD = ("projection", "projection_dim")  # of a projection head, which a child has beyond its parent


def _architecture(spec: dict[str, Any], but: Sequence[str] = ()) -> dict[str, Any]:
    """What must agree between parent and child; what is not set says nothing."""
    return {key: value for key, value in spec.items() if key not in (*FREE, *but) and value is not None}


def _remedy(key: str, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """What makes a child's network or transform one that can go on from its parent's."""
    if key == "transform" and "views" in ours:
        wanted = {part: theirs[part] for part in ("mean", "std") if part in theirs}
        return "add " + " ".join(f"transform.{part}={str(value).replace(' ', '')}" for part, value in wanted.items())
    if key == "backbone" and "projection" in ours and "projection" not in theirs:
        return f"choose its relative with a projection head, e.g. backbone={theirs['name']}_cider, of the same width"
    return f"add {key}={theirs['name']}"


def identity_of(settings: Settings, precision: str, device: torch.device) -> dict[str, Any]:
    """What determines a run's weights, and nothing else: an allow-list of resolved, coerced values."""
    return _identity(settings, precision, parent_run(settings, device))


def _identity(settings: Settings, precision: str, parent: Run | None) -> dict[str, Any]:
    schedule = settings.schedule.record()
    if not settings.uses_outliers:
        schedule.pop("outlier_batch_size")
    return {
        "method": settings.method.record(),
        "backbone": _backbone_record(settings.backbone),
        "id_data": settings.id_data.record(),
        "outliers": settings.outliers if settings.uses_outliers else None,
        "outlier_order": settings.outlier_order if settings.uses_outliers else None,
        "transform": _transform_record(settings),
        "schedule": schedule,
        "holdout": settings.holdout,
        **{key: getattr(settings, key) for key, usual in LATER.items() if getattr(settings, key) != usual},
        **({"local_batch_norm": settings.trainer.devices} if settings.trainer.norms_locally else {}),
        "precision": precision,
        "parent": None if parent is None else _parent_mark(settings, parent),
        "seed": settings.seed,
    }


def _backbone_record(spec: Component) -> dict[str, Any]:
    """Weights of others that training starts from are known by their content, wherever the file lies."""
    record = spec.record()
    return record if record.get("weights") is None else {**record, "weights": weights_mark(record["weights"])}


def _transform_record(settings: Settings) -> dict[str, Any]:
    """What befalls outliers says nothing of a run without any: it stands as most files have it, whatever it is."""
    record = settings.transform.record()
    if settings.uses_outliers or "outlier_augmentation" not in record:
        return record
    return {**record, "outlier_augmentation": "same"}


def _parent_mark(settings: Settings, parent: Run) -> str:
    """An automatic parent is known by its fingerprint, a named one by its weights."""
    if settings.init_from == "auto":
        return fingerprint(parent.identity)
    return "weights-" + hashlib.sha256(parent.weights.read_bytes()).hexdigest()[:12]


def fingerprint(identity: dict[str, Any]) -> str:
    """Eight hex digits of everything but the seed, so that the seeds of one setting share them."""
    facts = {key: value for key, value in identity.items() if key != "seed"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def name_of(identity: dict[str, Any]) -> str:
    """The folder's name of a training with this identity: what people look for, fingerprint, seed."""
    parts = [identity[group]["name"] for group in ("method", "backbone", "id_data")]
    if identity["outliers"] is not None:
        parts.append(identity["outliers"])
    return "-".join([*parts, fingerprint(identity), f"s{identity['seed']}"])


def run_in(settings: Settings, precision: str, parent: Run | None) -> Run:
    """The run that these settings mean in one precision."""
    identity = _identity(settings, precision, parent)
    name = name_of(identity)
    check_run_name(name, "method.name, backbone.name, id_data.name and outliers")
    return Run(Path(settings.paths.outputs) / "runs" / name, identity)


def targets_of(settings: Settings) -> dict[str, str]:
    """The classes that a run's record names, so that it can be rebuilt without its configuration."""
    return {group: getattr(settings, group).target for group in ("method", "backbone", "transform")}


# What an evaluation is told by its own command alone, whichever run it is of.
NOT_OF_A_RUN = ("paths", "trainer", "logger", "evaluate", "run", "words")


def settings_for(settings: Settings, run: Run) -> Settings:
    """The settings of an evaluation of `run`: what belongs to the run comes from its record.

    Where options were typed to eval.py, all other defaults do as well: it is as if the overrides that trained the run
    stood before them (`farout.runs.overrides`). Raises ConfigError where an option contradicts the run.
    """
    identity, record, typed = run.identity, run.record, settings.words or ()
    composed = compose_after(record_as_overrides(identity, record, typed), typed, "eval", typed)
    if settings.words is not None:
        _check_typed(composed, run)
        found = replace(composed, **{key: getattr(settings, key) for key in NOT_OF_A_RUN})
    elif settings.id_data.name == identity["id_data"]["name"]:
        found = settings
    else:
        found = replace(settings, id_data=composed.id_data)
    known = {entry.name for entry in fields(IdData)}
    id_data = replace(found.id_data, **{key: value for key, value in identity["id_data"].items() if key in known})
    scale = recorded_scale(record) or settings.scale
    return replace(found, id_data=id_data, outliers=identity["outliers"], seed=identity["seed"], scale=scale)


def _check_typed(composed: Settings, run: Run) -> None:
    """Raises ConfigError where an option that was typed would have trained another run."""
    name, parent = getattr(run, "name", "the run"), run.identity.get("parent")
    check_agrees(composed, run.identity, name)
    tuned = [word for word in composed.words or () if word.lstrip("+~").startswith("pretrain.")]
    if tuned and parent is not None and composed.init_from == "auto":
        own = parent_settings(composed)
        if all(fingerprint(_identity(own, precision, None)) != parent for precision in PRECISIONS):
            raise ConfigError(f"{tuned[0]} is not how the run that {name} started from was trained: leave it out")
