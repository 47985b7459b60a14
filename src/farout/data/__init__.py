"""Data sets: the catalogue, the store, packs, and what is generated or ships with a dependency."""

from farout.data.catalogue import DataPaths, conflicts, dataset_names, default_paths, split_names
from farout.data.image_set import ImageSet
from farout.data.store import available, open_dataset, open_verified, register_folder

__all__ = [
    "DataPaths",
    "ImageSet",
    "available",
    "conflicts",
    "dataset_names",
    "default_paths",
    "open_dataset",
    "open_verified",
    "register_folder",
    "split_names",
]
