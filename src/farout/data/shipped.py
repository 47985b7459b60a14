"""Real images that ship with a dependency, for the demo: scikit-learn's digits, crops of three photographs.

All of it is grey, 8 x 8 with 17 levels, enlarged by the same bilinear filter to 32 x 32, or the side of the ID set, so
that neither colour nor sharpness nor the number of levels tells digits from photographs.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from farout.data.image_set import Decoded
from farout.data.paths import DataPaths

DETAIL, LEVELS, SIDE = 8, 16, 32


def digits(
    split: str,
    paths: DataPaths,
    classes: list[int],
    test_share: float | None = None,
    seed: int = 0,
    side: int = SIDE,
) -> Decoded:
    """The digits of `classes`, labelled 0, 1, ...; all of them, or with `test_share` split from `seed`."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    rows = np.flatnonzero(np.isin(bunch.target, classes))
    if test_share is not None:
        target = bunch.target[rows]
        train, test = train_test_split(rows, test_size=test_share, random_state=seed, stratify=target)
        rows = np.sort({"train": train, "test": test}[split])
    labels = np.searchsorted(np.array(sorted(classes)), bunch.target[rows])
    names = tuple(str(c) for c in sorted(classes))
    return Decoded(_enlarge(bunch.images[rows], side), labels, names, {"built_from": "scikit-learn load_digits"})


def patches(
    split: str, paths: DataPaths, photo: str, count: int, seed: int, least_contrast: int, side: int = SIDE
) -> Decoded:
    """`count` distinct square crops, 24 to 192 pixels wide, of one photograph: china, flower or hopper.

    Crops with fewer than `least_contrast` levels between their darkest and brightest pixel are left out: flat
    crops of different photographs look the same.
    """
    picture = _photo(photo).convert("L")
    rng = np.random.default_rng(seed)
    crops: dict[bytes, np.ndarray] = {}
    while len(crops) < count:
        width = int(rng.integers(24, 193))
        left, top = rng.integers(0, picture.width - width + 1), rng.integers(0, picture.height - width + 1)
        box = (int(left), int(top), int(left) + width, int(top) + width)
        small = np.asarray(picture.resize((DETAIL, DETAIL), Image.Resampling.BOX, box))
        levels = np.rint(small / (255 / LEVELS))
        if np.ptp(levels) >= least_contrast:
            crops.setdefault(levels.tobytes(), levels)
    facts = {"built_from": f"{photo}.jpg of a dependency", "seed": seed}
    return Decoded(_enlarge(np.stack(list(crops.values())), side), facts=facts)


def _photo(name: str) -> Image.Image:
    if name == "hopper":
        import matplotlib.cbook

        path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
        return Image.open(path).convert("RGB")
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image(f"{name}.jpg"))


def _enlarge(levels: np.ndarray, side: int) -> np.ndarray:
    """(N, 8, 8) of levels 0..16 -> uint8 (N, 3, side, side)."""
    grey = np.rint(levels * (255 / LEVELS)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(g).resize((side, side), Image.Resampling.BILINEAR)) for g in grey]
    return np.repeat(np.stack(large)[:, None], 3, axis=1)
