"""Images of a run's own distribution that no network of its line ever trained on: all that may choose a threshold."""

import hashlib

import numpy as np
import torch

from farout.data import DataPaths, ImageSet, available, open_dataset
from farout.data.duplicates import find_duplicates
from farout.data.rules import HoldoutRule
from farout.data.streams import holdout_split
from farout.errors import FaroutError
from farout.runs.run import Run, fingerprint, open_run

INSTEAD = "or give calibration images (calibration_images=..., --calibration FOLDER)"


def labelled_images(run: Run, paths: DataPaths) -> ImageSet:
    """The labelled set that the run was trained on; raises FaroutError where the data are others now."""
    facts = run.identity["id_data"]
    image_set = open_dataset(facts["name"], facts["train_split"], paths)
    recorded = ((run.record.get("data") or {}).get("labelled") or {}).get("sha256")
    if recorded is not None and recorded != image_set.info["sha256"]:
        raise FaroutError(
            f"{facts['name']} ({facts['train_split']}) has changed since {run.name} was trained on it: restore it"
        )
    return image_set


def has_labelled_images(run: Run, paths: DataPaths) -> bool:
    """Whether `labelled_images` needs no download."""
    facts = run.identity["id_data"]
    return available(facts["name"], facts["train_split"], paths)


def training_images(run: Run, paths: DataPaths) -> ImageSet:
    """The rows that the run itself trained on."""
    labelled = labelled_images(run, paths)
    rows, held = holdout_split(len(labelled), _holdout(run), _rule(run))
    return labelled.subset(rows) if len(held) else labelled


def unseen_images(run: Run, paths: DataPaths) -> ImageSet:
    """The run's holdout, less what the runs that it started from trained on, and less copies of training images.

    Raises FaroutError saying what to do where nothing is left, or where the line cannot be followed.
    """
    if _holdout(run) == 0:
        raise FaroutError(
            f"{run.name} kept no image from training, so none can choose a threshold: "
            f"train it with holdout=0.1 (and pretrain.holdout=0.1), {INSTEAD}"
        )
    labelled = labelled_images(run, paths)
    unseen = np.arange(len(labelled))
    for member in ancestry(run):
        own = holdout_split(len(labelled), _holdout(member), _rule(member))[1].numpy()
        unseen = np.intersect1d(unseen, own)
        if len(unseen) == 0:
            raise FaroutError(
                f"{run.name} started from {member.name}, which was trained on the images that {run.name} held out: "
                f"train again with pretrain.holdout={_holdout(run):g}, {INSTEAD}"
            )
    seen = labelled.subset(np.setdiff1d(np.arange(len(labelled)), unseen))
    return _without_copies(labelled.subset(unseen), seen)


def ancestry(run: Run) -> list[Run]:
    """The run, the run whose weights it started from, and so on.

    Raises FaroutError where one is not beside the others, or was trained on another set: nobody can then tell which
    images its weights have seen.
    """
    members = [run]
    while (mark := members[-1].identity["parent"]) is not None:
        parent = parent_of(mark, members[-1])
        if parent is None:
            raise FaroutError(
                f"{members[-1].name} started from a run ({mark}) that is not in {run.folder.parent}, so nobody can "
                f"tell whether that saw the holdout: put it there, {INSTEAD}"
            )
        if parent.identity["id_data"] != run.identity["id_data"]:
            raise FaroutError(
                f"{members[-1].name} started from {parent.name}, which was trained on "
                f"{parent.identity['id_data']['name']}; whether it saw the holdout cannot be told: {INSTEAD[3:]}"
            )
        members.append(parent)
    return members


def parent_of(mark: str, child: Run) -> Run | None:
    """The run that an identity's `parent` means: by the fingerprint of its identity, or by its weights."""
    for record in sorted(child.folder.parent.glob("*/run.json")):
        try:
            run = open_run(record.parent)
        except FaroutError:
            continue  # a damaged neighbour is nobody's parent
        if mark.startswith("weights-"):
            digest = hashlib.sha256(run.weights.read_bytes()).hexdigest() if run.finished else ""
            if digest.startswith(mark.removeprefix("weights-")):
                return run
        elif fingerprint(run.identity) == mark and run.identity["seed"] == child.identity["seed"]:
            return run
    return None


def _holdout(run: Run) -> float:
    return float(run.identity.get("holdout") or 0.0)


def _rule(run: Run) -> HoldoutRule:
    rule: HoldoutRule = run.identity.get("holdout_rule", "permuted")
    return rule


def _without_copies(images: ImageSet, seen: ImageSet) -> ImageSet:
    copies = find_duplicates([seen], images)
    kept = np.setdiff1d(np.arange(len(images)), copies)
    return images.subset(torch.from_numpy(kept)) if len(copies) else images


def overlaps(images: ImageSet, run: Run, paths: DataPaths) -> list[str]:
    """What is doubtful about calibration images that a caller gave: a line for each, none where all is well."""
    facts, found = run.identity["id_data"], []
    if has_labelled_images(run, paths):
        seen = len(find_duplicates([training_images(run, paths)], images))
        if seen:
            found.append(
                f"{run.name} was trained on {seen} of {len(images)} calibration images: too strict a threshold"
            )
    if available(facts["name"], "test", paths):
        tested = len(find_duplicates([open_dataset(facts["name"], "test", paths)], images))
        if tested:
            found.append(f"{tested} of {len(images)} calibration images are test images: report no figure on that set")
    return found
