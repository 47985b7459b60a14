"""Runs: the same overrides lead to the same folder."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import torch
from filelock import FileLock, Timeout

from farout.backbones import Backbone
from farout.backbones.imagenet_resnet import weights_mark
from farout.data.transform import Transform
from farout.engine.checkpoint import load_weights
from farout.engine.progress import say
from farout.errors import ConfigError, FaroutError
from farout.files import load_json, save_json
from farout.launch.coerce import Component, component, locate
from farout.launch.compose import compose_after
from farout.launch.recorded import check_agrees, recorded_words
from farout.launch.settings import IdData, Precision, Settings, parent_settings

PRECISIONS = get_args(Precision)


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
        """run.json: identity, data, how it was trained."""
        found: dict[str, Any] = load_json(self.folder / "run.json")
        return found

    def write_record(self, **parts: Any) -> None:
        """Create or extend run.json."""
        path = self.folder / "run.json"
        known = load_json(path) if path.exists() else {"run": self.name, "identity": self.identity}
        save_json(path, {**known, **parts})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time works on a run; others wait and then find it done."""
        locks = self.folder.parent / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{self.name}.lock")
        try:
            lock.acquire(timeout=0.1)
        except Timeout:
            say(f"waiting for another process that works on {self.name}")
            lock.acquire()
        try:
            # Whoever holds the lock is the only writer: unfinished files are those of a killed process.
            for left in self.folder.glob(".*.tmp"):
                left.unlink()
            yield
        finally:
            lock.release()

    def backbone(self) -> Backbone:
        """The network of this run, freshly initialised."""
        spec = self.identity["backbone"]
        return build_backbone(component({**spec, "_target_": self.targets["backbone"]}, "backbone"), self.num_classes)

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
        found: dict[str, str] = self.record["targets"]
        return found

    def reading(self) -> dict[str, Any]:
        """How weights and images become outputs: network and transform, with the classes that build them."""
        return {"targets": self.targets, **{key: self.identity[key] for key in ("backbone", "transform", "id_data")}}

    def transform(self) -> Transform:
        """The normalisation and augmentation that this run was trained with."""
        spec = {**self.identity["transform"], "_target_": self.targets["transform"]}
        built: Transform = component(spec, "transform").build()
        return built

    def model(self, device: torch.device) -> Backbone:
        """The trained network in evaluation mode, fp32."""
        if not self.finished:
            raise FaroutError(f"{self.folder} holds no finished run: repeat its training command to finish it")
        model = self.backbone()
        load_weights(self.weights, model)
        return model.to(device).eval()


def build_backbone(spec: Component, num_classes: int) -> Backbone:
    """Instantiate a network of the backbone group."""
    built: Backbone = spec.build(num_classes=num_classes)
    return built


def open_run(folder: str | Path) -> Run:
    """The run in a folder that the user named."""
    path = Path(folder)
    if not (path / "run.json").is_file():
        raise FaroutError(f"{folder} is not a run folder (it has no run.json): name one of outputs/runs/")
    return Run(path, load_json(path / "run.json")["identity"])


def resolve_precision(settings: Settings, device: torch.device) -> Precision:
    """The fixed rule: bf16 on GPUs that have it, fp32 elsewhere and for methods that want it; or what was asked for."""
    asked = settings.trainer.precision
    if asked != "auto":
        return asked
    if locate(settings.method.target).full_precision:
        return "fp32"
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def run_of(settings: Settings, device: torch.device) -> Run:
    """The run that these settings mean.

    With precision=auto, a run that another device began is taken up in the precision it was begun in.
    """
    own = resolve_precision(settings, device)
    candidates = [own] if settings.trainer.precision != "auto" else [own, *(p for p in PRECISIONS if p != own)]
    runs = [_run(settings, precision, device) for precision in candidates]
    return next((run for run in runs if (run.folder / "run.json").exists()), runs[0])


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
        if _architecture(theirs) != _architecture(ours):
            raise ConfigError(f"init_from was trained with {key}={theirs['name']}: add {key}={theirs['name']}")


def _architecture(spec: dict[str, Any]) -> dict[str, Any]:
    """What must agree between parent and child: augmentation and dropout may differ, names do not matter."""
    free = ("name", "dropout", "weights", "trainable", "flip", "crop_padding", "outlier_augmentation")
    return {key: value for key, value in spec.items() if key not in free}


def identity_of(settings: Settings, precision: str, device: torch.device) -> dict[str, Any]:
    """What determines a run's weights, and nothing else: an allow-list of resolved, coerced values."""
    schedule = settings.schedule.record()
    if not settings.uses_outliers:
        schedule.pop("outlier_batch_size")
    parent = parent_run(settings, device)
    return {
        "method": settings.method.record(),
        "backbone": _backbone_record(settings.backbone),
        "id_data": settings.id_data.record(),
        "outliers": settings.outliers if settings.uses_outliers else None,
        "outlier_order": settings.outlier_order if settings.uses_outliers else None,
        "transform": _transform_record(settings),
        "schedule": schedule,
        "holdout": settings.holdout,
        **({} if settings.holdout_rule == "permuted" else {"holdout_rule": settings.holdout_rule}),
        **({} if settings.keep == "last" else {"keep": settings.keep}),
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


def _run(settings: Settings, precision: str, device: torch.device) -> Run:
    identity = identity_of(settings, precision, device)
    parts = [settings.method.name, settings.backbone.name, settings.id_data.name]
    if settings.uses_outliers:
        parts.append(str(settings.outliers))
    parts += [fingerprint(identity), f"s{settings.seed}"]
    return Run(Path(settings.paths.outputs) / "runs" / "-".join(parts), identity)


def targets_of(settings: Settings) -> dict[str, str]:
    """The classes that a run's record names, so that it can be rebuilt without its configuration."""
    return {"backbone": settings.backbone.target, "transform": settings.transform.target}


# What an evaluation is told by its own command alone, whichever run it is of.
NOT_OF_A_RUN = ("paths", "trainer", "logger", "evaluate", "run", "words")


def settings_for(settings: Settings, run: Run) -> Settings:
    """The settings of an evaluation of `run`: what belongs to the run comes from its record.

    Where options were typed to eval.py, all other defaults do as well: it is as if the overrides that trained the run
    stood before them (`farout.launch.recorded`). Raises ConfigError where an option contradicts the run.
    """
    identity, record, typed = run.identity, run.record, settings.words or ()
    composed = compose_after(recorded_words(identity, record, typed), typed, "eval", typed)
    if settings.words is not None:
        _check_typed(composed, run)
        found = replace(composed, **{key: getattr(settings, key) for key in NOT_OF_A_RUN})
    elif settings.id_data.name == identity["id_data"]["name"]:
        found = settings
    else:
        found = replace(settings, id_data=composed.id_data)
    known = {entry.name for entry in fields(IdData)}
    id_data = replace(found.id_data, **{key: value for key, value in identity["id_data"].items() if key in known})
    scale = record.get("scale") or settings.scale
    return replace(found, id_data=id_data, outliers=identity["outliers"], seed=identity["seed"], scale=scale)


def _check_typed(composed: Settings, run: Run) -> None:
    """Raises ConfigError where an option that was typed would have trained another run."""
    name, parent = getattr(run, "name", "the run"), run.identity.get("parent")
    check_agrees(composed, run.identity, name)
    tuned = [word for word in composed.words or () if word.lstrip("+~").startswith("pretrain.")]
    if tuned and parent is not None and composed.init_from == "auto":
        wanted = identity_of(parent_settings(composed), run.identity["precision"], torch.device("cpu"))
        if fingerprint(wanted) != parent:
            raise ConfigError(f"{tuned[0]} is not how the run that {name} started from was trained: leave it out")
