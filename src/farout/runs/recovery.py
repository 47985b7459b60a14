"""Before a run is trained or evaluated: damaged files are moved aside, and other images or classes are refused."""

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import OmegaConf

from farout.config.coerce import class_of
from farout.config.settings import Settings
from farout.engine.progress import say
from farout.errors import FaroutError
from farout.files import set_aside
from farout.places import conf_file
from farout.runs.inputs import TrainingData
from farout.runs.records import DamagedRun
from farout.runs.run import Run, fingerprint, targets_of


def recover(run: Run, settings: Settings, data: TrainingData) -> None:
    """Make a run's folder fit to go on with, under its lock.

    Raises FaroutError where it was trained on other images or with other classes than these settings mean.
    """
    with torch.device("meta"):
        learns = bool(settings.method.build().state_dict())
    set_aside_damage(run, learns=learns, same=True)
    if (run.folder / "run.json").exists():
        record = run.record
        _check_classes(run, record.get("targets") or {}, settings)
        _check_images(run, record.get("data") or {}, data)


def set_aside_damage(run: Run, learns: bool = False, same: bool = False) -> None:
    """Rename what cannot be used, so that it is made anew; nothing is deleted.

    `learns` says that the method leaves a file of its own; `same` that run.json must be of these very settings.
    """
    problem = _damage(run, learns, same)
    if problem is None:
        return
    record = run.folder / "run.json"
    wanted = [run.weights, run.method_state, *([record] if problem.path == record else [])]
    moved = [set_aside(path).name for path in wanted if path.exists()]
    said = f"moved aside as {', '.join(moved)}; " if moved else ""
    say(f"{problem.path} is damaged ({problem.reason}): {said}it is made anew")


def _damage(run: Run, learns: bool, same: bool) -> DamagedRun | None:
    path = run.folder / "run.json"
    if not path.exists():
        return DamagedRun(path, "it is missing beside finished weights") if run.finished else None
    try:
        record = run.record
        if same and fingerprint(record["identity"]) != fingerprint(run.identity):
            return DamagedRun(path, "it describes another run")
        described = Run(run.folder, record["identity"])  # a campaign knows its runs by their folders alone
        if record.get("targets") is not None:
            described.transform()
        if run.finished:
            described.check_files()
            if learns and not run.method_state.exists():
                return DamagedRun(run.method_state, "it is missing")
    except DamagedRun as problem:
        return problem
    return None


def _check_classes(run: Run, recorded: Mapping[str, str], settings: Settings) -> None:
    """Another class by the same name would go on with, or be taken for, what the first one trained."""
    for group, ours in targets_of(settings).items():
        theirs = recorded.get(group) or usual_target(group, getattr(settings, group).name) or ours
        if class_of(theirs, group) is not class_of(ours, group):
            raise FaroutError(
                f"{run.name} was trained with {group}._target_={theirs}, not {ours}: leave that out, or start another "
                f"run with {group}.name=NAME"
            )


def usual_target(group: str, name: str) -> str | None:
    """What the file of that name says: versions before did not record the method's class."""
    path = conf_file(f"{group}/{name}")
    if group != "method" or not path.is_file():
        return None
    found = OmegaConf.select(OmegaConf.load(path), "method._target_")
    return None if found is None else str(found)


def _check_images(run: Run, recorded: Mapping[str, Any], data: TrainingData) -> None:
    """By the hashes that run.json keeps; what it does not know cannot be compared."""
    now = data.record()
    for part in ("labelled", "outliers"):
        theirs, ours = ((facts.get(part) or {}).get("sha256") for facts in (recorded, now))
        if theirs is not None and ours is not None and theirs != ours:
            images = getattr(data, part)
            raise _other_images(run, f"the images of {images.name} ({images.split})", theirs, ours)
    theirs, ours = recorded.get("rows_sha256"), now.get("rows_sha256")
    if theirs is not None and ours is not None and theirs != ours:
        raise _other_images(run, "the choice among the images (holdout, copies of test images)", theirs, ours)


def _other_images(run: Run, what: str, theirs: str, ours: str) -> FaroutError:
    return FaroutError(
        f"{what} changed since {run.name} began (hash {theirs[:16]} then, {ours[:16]} now): restore them, or start "
        f"another run, by another name of the data set or another paths.outputs"
    )
