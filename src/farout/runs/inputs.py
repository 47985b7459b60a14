"""The image sets of a run: opened, deduplicated, split, capped; and what is missing, with the reason."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from farout.config.settings import Settings
from farout.data import DataPaths, ImageSet, available, conflicts, open_dataset, open_verified, register_folder
from farout.data.catalogue import load_entry
from farout.data.class_folders import read_class_list
from farout.data.corruptions import KINDS
from farout.data.duplicates import find_duplicates
from farout.data.streams import holdout_split, subset_rows
from farout.errors import ConfigError, FaroutError, MissingDataError


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


@dataclass
class EvaluationData:
    """The ID test set, the OOD sets that are there, and for the others the reason why not."""

    id_test: ImageSet
    ood: dict[str, ImageSet] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageSets:
    """The image sets that settings name, opened where they lie."""

    settings: Settings

    @property
    def paths(self) -> DataPaths:
        """Where data lie; a folder of the user's own is made known there."""
        paths, own = self.settings.paths.data_paths(), self.settings.id_data
        if own.folder is not None and own.class_list is not None:
            register_folder(own.name, Path(own.folder), read_class_list(own.class_list), paths)
        return paths

    def labelled(self) -> ImageSet:
        """The images that train, with those that are held out of them."""
        return open_verified(self.settings.id_data.name, self.settings.id_data.train_split, self.paths)

    def training(self) -> TrainingData:
        """Open what training needs.

        Raises:
            MissingDataError: a set is neither in the store nor in a pack.
            ConfigError: labels and num_classes disagree, or the holdout leaves nothing to train on.
        """
        settings, paths, labelled = self.settings, self.paths, self.labelled()
        self.check_labels(labelled)
        side = int(labelled.info["side"])
        self._check_before_evaluation(labelled)
        train_rows, holdout_rows = holdout_split(len(labelled), settings.holdout, settings.holdout_rule)
        if len(train_rows) == 0 or (settings.holdout > 0 and len(holdout_rows) == 0):
            raise ConfigError(f"holdout={settings.holdout:g} of {len(labelled)} images leaves one side empty")
        if not settings.uses_outliers:
            return TrainingData(labelled, train_rows, holdout_rows, None, None, {})
        outliers = open_verified(str(settings.outliers), "train", paths, side)
        if (other := of_another_size(outliers, labelled, paths)) is not None:
            raise ConfigError(f"outliers={settings.outliers}: {other}")
        references = [labelled, open_dataset(settings.id_data.name, "test", paths, side)]
        duplicated = find_duplicates(references, outliers)
        kept = np.setdiff1d(np.arange(len(outliers)), duplicated)
        kept = kept[subset_rows(len(kept), settings.max_outlier_images, settings.seed)]
        return TrainingData(
            labelled, train_rows, holdout_rows, outliers, torch.from_numpy(kept), {outliers.name: len(duplicated)}
        )

    def evaluation(self) -> EvaluationData:
        """Open the ID test set and every OOD set of the list that is there, but images that training or ID share."""
        settings, paths, labelled = self.settings, self.paths, self.labelled()
        id_test, side = self.test_set(labelled), int(labelled.info["side"])
        found = EvaluationData(capped(id_test, settings.max_eval_images))
        references = [id_test, labelled]
        if settings.outliers is not None:
            references.append(open_dataset(settings.outliers, "train", paths, side))
        for name in settings.ood_data.sets:
            reason = self.absence(name)
            if reason is not None:
                found.missing[name] = reason
                continue
            image_set = open_verified(name, "test", paths, side)
            duplicated = find_duplicates(references, image_set)
            found.duplicates[name] = len(duplicated)
            if len(duplicated):
                image_set = image_set.subset(np.setdiff1d(np.arange(len(image_set)), duplicated))
            if len(image_set) == 0:
                found.missing[name] = f"none of its {len(duplicated)} images is left: training or ID has copies of all"
                continue
            found.ood[name] = capped(image_set, settings.max_eval_images)
        return found

    def test_set(self, labelled: ImageSet) -> ImageSet:
        """The ID test set at the side of the training images, with the training classes.

        Raises ConfigError where it is no other set than those, or does not fit them.
        """
        paths = self.paths
        test = open_verified(self.settings.id_data.name, "test", paths, int(labelled.info["side"]))
        if _is_whole(labelled) and _is_whole(test):
            raise ConfigError(
                f"id_data={test.name} would be tested on its training images: its source has no folders train and "
                "test; make them, or write `splits: {holdout: 0.2}` into its YAML"
            )
        self.check_labels(test)
        if (other := of_another_size(test, labelled, paths)) is not None:
            raise ConfigError(other)
        own = "sizes" in test.info  # sets of the catalogue have fixed orders, though not always the same spelling
        if own and test.classes != labelled.classes:
            strange = sorted(set(test.classes) ^ set(labelled.classes)) or ["all"]
            raise ConfigError(f"id_data={test.name}: class {strange[0]} is not in both of {labelled.split} and test")
        return test

    def check_labels(self, labelled: ImageSet) -> None:
        """Raise ConfigError where a set has no labels, or not as many classes as the configuration says."""
        own = self.settings.id_data
        if labelled.labels is None:
            raise ConfigError(f"id_data={labelled.name} ({labelled.split}) has no labels: give class folders")
        classes = len(labelled.classes) or int(labelled.labels.max()) + 1
        if classes != own.num_classes:
            raise ConfigError(
                f"id_data={labelled.name} ({labelled.split}) has {classes} classes, not {own.num_classes}: "
                f"set id_data.num_classes={classes}"
            )

    def _check_before_evaluation(self, labelled: ImageSet) -> None:
        """Open what an evaluation needs, so that what it would refuse is refused before training.

        Without an evaluation a test set that is not there, or not yet, does not matter.
        """
        try:
            self.test_set(labelled)
        except FaroutError as error:
            if self.settings.evaluate or (isinstance(error, ConfigError) and _is_whole(labelled)):
                raise
        own = self.settings.id_data
        chooses = self.settings.holdout > 0 and own.corruption_base is not None
        if chooses and available(str(own.corruption_base), own.corruption_split, self.paths):
            self.corruption_images(labelled)

    def absence(self, name: str) -> str | None:
        """Why an OOD set takes no part in this evaluation; None where it does."""
        paths, own = self.paths, self.settings.id_data
        if name == own.name:
            return "it is the in-distribution set"
        clash = conflicts(name, self.settings.outliers, paths)
        if clash is not None:
            return clash
        here = available(own.name, own.train_split, paths)
        labelled = open_dataset(own.name, own.train_split, paths) if here else None
        try:
            image_set = open_dataset(name, "test", paths, None if labelled is None else int(labelled.info["side"]))
        except MissingDataError as error:
            return str(error)
        return None if labelled is None else of_another_size(image_set, labelled, paths)

    def corruption_images(self, labelled: ImageSet | None = None) -> ImageSet:
        """The images whose corruptions choose, at the side of the ID set.

        Raises ConfigError where theirs is another.
        """
        (base, split), paths, own = self.corruption_source(), self.paths, self.settings.id_data
        labelled = labelled or open_dataset(own.name, own.train_split, paths)
        images = open_dataset(base, split, paths, int(labelled.info["side"]))
        if (other := of_another_size(images, labelled, paths)) is not None:
            raise ConfigError(f"id_data.corruption_base={base}: {other}")
        return images

    def corruption_sets(self, limit: int) -> dict[str, ImageSet]:
        """The validation corruptions of the set that id_data names, at most `limit` images each."""
        (base, split), paths, own = self.corruption_source(), self.paths, self.settings.id_data
        labelled = open_dataset(own.name, own.train_split, paths)
        side, found = int(labelled.info["side"]), {}
        for kind in KINDS:
            image_set = open_dataset(f"corruption_{kind}@{base}", split, paths, side)
            if (other := of_another_size(image_set, labelled, paths)) is not None:
                raise ConfigError(f"id_data.corruption_base={base}: {other}")
            found[kind] = capped(image_set, limit)
        return found

    def corruption_source(self) -> tuple[str, str]:
        """The set and split whose corruptions choose; raises ConfigError where there is none."""
        own = self.settings.id_data
        if own.corruption_base is None:
            raise ConfigError(f"id_data={own.name} has no validation corruptions to choose by: tune nothing")
        return own.corruption_base, own.corruption_split


def training_data(settings: Settings) -> TrainingData:
    """`ImageSets.training`."""
    return ImageSets(settings).training()


def evaluation_data(settings: Settings) -> EvaluationData:
    """`ImageSets.evaluation`."""
    return ImageSets(settings).evaluation()


def _is_whole(image_set: ImageSet) -> bool:
    """Whether this is all that an own source holds."""
    return (image_set.info.get("splits") or {}).get(image_set.split) == "whole"


def of_another_size(other: ImageSet, labelled: ImageSet, paths: DataPaths) -> str | None:
    """Why a set does not fit the network's size, naming both; None where it does or is fed as it is."""
    side, wanted = other.info["side"], labelled.info["side"]
    if side == wanted or load_entry(other.name, paths).get("fed_as_is"):
        return None
    return (
        f"{other.name} ({other.split}) is {side} x {side} but {labelled.name} ({labelled.split}) is "
        f"{wanted} x {wanted}: take sets of one size, or say in their YAML `resize` and `crop`"
    )


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
