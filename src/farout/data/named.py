"""A data set of the catalogue, for code that names one."""

from farout.data.image_set import ImageSet
from farout.data.paths import default_paths
from farout.data.store import open_verified


def load_dataset(name: str, split: str = "test", side: int | None = None) -> ImageSet:
    """A data set of the catalogue (docs/data.md), as `evaluate` and `Detector.from_model` take it.

    What is generated, ships with a dependency or lies in a pack is built on first use, into `data/` or $FAROUT_DATA.
    Pictures, with labels where the set has them, go through your transform; noise that the papers feed as it is
    (gaussian, rademacher, blobs) does not.

    Args:
        name: e.g. digits, textures; `gaussian@2000` is the first 2,000 images.
        split: one that the set has.
        side: of generated images in pixels, for networks that take another than 32.

    Raises ConfigError for a name or split that is not there, MissingDataError where `farout-data` has to get it first.
    """
    return open_verified(name, split, default_paths(), side)
