"""Data sets: the catalogue, the store, packs, and what is generated or ships with a dependency."""

from typing import TYPE_CHECKING

from farout.lazy import lazy_names

if TYPE_CHECKING:  # for type checkers and editors: the same names as below
    from farout.data.catalogue import conflicts, dataset_names, split_names
    from farout.data.image_set import ImageSet
    from farout.data.paths import DataPaths, default_paths
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

_MODULES = {
    "farout.data.catalogue": ("conflicts", "dataset_names", "split_names"),
    "farout.data.image_set": ("ImageSet",),
    "farout.data.paths": ("DataPaths", "default_paths"),
    "farout.data.store": (
        "available",
        "open_dataset",
        "open_verified",
        "register_folder",
    ),
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
