"""The image sets of a run: opened, deduplicated, split, capped; and what is missing, with the reason."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from farout.data import DataPaths, ImageSet, available, conflicts, open_dataset, register_folder
from farout.data.class_folders import read_class_list
from farout.data.corruptions import KINDS
from farout.data.duplicates import find_duplicates
from farout.data.streams import holdout_split
from farout.errors import ConfigError, MissingDataError
from farout.launch.settings import Settings


@dataclass(frozen=True)
class TrainingData:
    """Labelled images with the rows that train and the rows held out; outliers with the rows that are no duplicates."""

    labelled: ImageSet
    train_rows: Tensor
    holdout_rows: Tensor
    outliers: ImageSet | None
    outlier_rows: Tensor | None
    duplicates: dict[str, int]

    def record(self) -> dict[str, Any]:
        """What run.json keeps: variants and counts."""
        sets = {"labelled": self.labelled.info, "outliers": self.outliers.info if self.outliers else None}
        counts = {"duplicates_dropped": self.duplicates, "holdout": len(self.holdout_rows)}
        return {**sets, **counts, "rows_sha256": self._rows_hash()}

    def _rows_hash(self) -> str:
        """Which rows trained and which were held out, in their order."""
        digest = hashlib.sha256()
        for rows in (self.train_rows, self.holdout_rows, self.outlier_rows):
            digest.update(b"/" if rows is None else rows.to(torch.int64).numpy().tobytes() + b"/")
        return digest.hexdigest()

    @property
    def tag(self) -> str:
        """Which bytes a checkpoint's order of images refers to."""
        parts = [self.labelled.info["sha256"], self.outliers.info["sha256"] if self.outliers else ""]
        return "/".join(part[:16] for part in parts)


def training_data(settings: Settings) -> TrainingData:
    """Open what training needs.

    Raises:
        MissingDataError: a set is neither in the store nor in a pack.
        ConfigError: labels and num_classes disagree, or the holdout leaves nothing to train on.
    """
    paths = known_paths(settings)
    labelled = open_dataset(settings.id_data.name, settings.id_data.train_split, paths)
    _check_labels(labelled, settings)
    train_rows, holdout_rows = holdout_split(len(labelled), settings.holdout, settings.holdout_rule)
    if len(train_rows) == 0 or (settings.holdout > 0 and len(holdout_rows) == 0):
        raise ConfigError(f"holdout={settings.holdout:g} of {len(labelled)} images leaves one side empty")
    if not settings.uses_outliers:
        return TrainingData(labelled, train_rows, holdout_rows, None, None, {})
    outliers = open_dataset(str(settings.outliers), "train", paths)
    references = [labelled, open_dataset(settings.id_data.name, "test", paths)]
    duplicated = find_duplicates(references, outliers)
    kept = np.setdiff1d(np.arange(len(outliers)), duplicated)
    return TrainingData(
        labelled, train_rows, holdout_rows, outliers, torch.from_numpy(kept), {outliers.name: len(duplicated)}
    )


def known_paths(settings: Settings) -> DataPaths:
    """Where data lie; a folder of the user's own is made known there."""
    paths, own = settings.paths.data_paths(), settings.id_data
    if own.folder is not None and own.class_list is not None:
        register_folder(own.name, Path(own.folder), read_class_list(own.class_list), paths)
    return paths


def _check_labels(labelled: ImageSet, settings: Settings) -> None:
    if labelled.labels is None:
        raise ConfigError(f"id_data={labelled.name} has no labels: give class folders")
    highest = int(labelled.labels.max())
    if highest >= settings.id_data.num_classes:
        raise ConfigError(f"id_data={labelled.name} has {highest + 1} classes: set id_data.num_classes={highest + 1}")


@dataclass
class EvaluationData:
    """The ID test set, the OOD sets that are there, and for the others the reason why not."""

    id_test: ImageSet
    ood: dict[str, ImageSet] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)


def evaluation_data(settings: Settings) -> EvaluationData:
    """Open the ID test set and every OOD set of the list that is there, without images that training or ID share."""
    paths = known_paths(settings)
    id_test = open_dataset(settings.id_data.name, "test", paths)
    found = EvaluationData(capped(id_test, settings.max_eval_images))
    references = [id_test, open_dataset(settings.id_data.name, settings.id_data.train_split, paths)]
    if settings.outliers is not None:
        references.append(open_dataset(settings.outliers, "train", paths))
    for name in settings.ood_data.sets:
        reason = absence(name, settings, paths)
        if reason is not None:
            found.missing[name] = reason
            continue
        image_set = open_dataset(name, "test", paths)
        duplicated = find_duplicates(references, image_set)
        found.duplicates[name] = len(duplicated)
        if len(duplicated):
            image_set = image_set.subset(np.setdiff1d(np.arange(len(image_set)), duplicated))
        if len(image_set) == 0:
            found.missing[name] = f"none of its {len(duplicated)} images is left: training or ID has copies of all"
            continue
        found.ood[name] = capped(image_set, settings.max_eval_images)
    return found


def absence(name: str, settings: Settings, paths: DataPaths) -> str | None:
    """Why an OOD set takes no part in this evaluation; None where it does."""
    if name == settings.id_data.name:
        return "it is the in-distribution set"
    clash = conflicts(name, settings.outliers, paths)
    if clash is not None:
        return clash
    if not available(name, "test", paths):
        try:
            open_dataset(name, "test", paths)
        except MissingDataError as error:
            return str(error)
    return None


def capped(image_set: ImageSet, limit: int | None) -> ImageSet:
    """Evenly spread rows where a smoke run wants only a few (sets are often sorted by class)."""
    if limit is None or len(image_set) <= limit:
        return image_set
    return image_set.subset(spread(len(image_set), limit))


def spread(n: int, limit: int | None) -> np.ndarray:
    """(min(n, limit),) int64: evenly spread rows of n."""
    if limit is None or n <= limit:
        return np.arange(n)
    return np.linspace(0, n - 1, limit).round().astype(np.int64)


def corruption_sets(settings: Settings, limit: int) -> dict[str, ImageSet]:
    """The validation corruptions of the set that id_data names, at most `limit` images each."""
    base, split = corruption_source(settings)
    paths = settings.paths.data_paths()
    return {kind: capped(open_dataset(f"corruption_{kind}@{base}", split, paths), limit) for kind in KINDS}


def corruption_source(settings: Settings) -> tuple[str, str]:
    """The set and split whose corruptions choose; raises ConfigError where there is none."""
    base = settings.id_data.corruption_base
    if base is None:
        raise ConfigError(f"id_data={settings.id_data.name} has no validation corruptions to choose by: tune nothing")
    return base, settings.id_data.corruption_split
