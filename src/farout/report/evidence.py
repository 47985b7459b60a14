"""What a report is drawn from: plain arrays of one evaluation, and the dictionaries of its results.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from farout.errors import FaroutError

Entry = Mapping[str, Any]  # one of results.json's "evaluations"
ID = "id"  # the ID set's key among the scores and pictures


@dataclass(frozen=True)
class Pictures:
    """The images of one set, in the order of its scores, and what the network took them for.

    Attributes:
        images: (N, 3, H, W), uint8; float noise is shown stretched to its own range. A tensor or an array;
            only the few rows that are shown are read.
        predictions: (N,) class indices.
        labels: (N,) class indices; None for OOD sets.
    """

    images: Any
    predictions: ArrayLike
    labels: ArrayLike | None = None

    def rows(self, chosen: NDArray[np.intp]) -> NDArray[np.uint8]:
        """(k, 3, H, W) uint8 pictures of these rows."""
        picked = np.stack([np.asarray(self.images[int(row)]) for row in chosen])
        if picked.dtype == np.uint8:
            return picked
        low, high = float(picked.min()), float(picked.max())
        return np.round(255 * (picked - low) / max(high - low, 1e-12)).astype(np.uint8)


@dataclass(frozen=True)
class Sphere:
    """Points of one space on the unit sphere, seen along the first two principal components of its ID images.

    Attributes:
        space: "embedding" or "features".
        share: (2,) shares of the variance that the components explain.
        directions: (K, 2) of the classes on the plane; class_names: of these classes.
        labels: (n,) for the shown ID points, their place among the directions; -1 for a class that has none.
        points: set -> (n, 2) on the plane, a sample; "id" is the ID set.
        angles: set -> (N,) degrees to the nearest direction, of every image that has a direction itself.
    """

    space: str
    share: NDArray[np.float32]
    directions: NDArray[np.float32]
    class_names: Sequence[str]
    labels: NDArray[np.int64]
    points: Mapping[str, NDArray[np.float32]]
    angles: Mapping[str, NDArray[np.float32]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it by name, for a file of arrays; `from_arrays` makes the same of them."""
        sets = {"points": self.points, "angles": self.angles}
        return {
            "space": np.array(self.space),
            "share": self.share,
            "directions": self.directions,
            "class_names": np.array(self.class_names, dtype=np.str_),
            "labels": self.labels,
            **{f"{kind}/{name}": values for kind, by_set in sets.items() for name, values in by_set.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Sphere":
        """Raises KeyError where an array is absent."""
        by_set = {
            kind: {name.removeprefix(f"{kind}/"): v for name, v in arrays.items() if name.startswith(f"{kind}/")}
            for kind in ("points", "angles")
        }
        names = [str(name) for name in arrays["class_names"]]
        return cls(str(arrays["space"]), arrays["share"], arrays["directions"], names, arrays["labels"], **by_set)


@dataclass(frozen=True)
class Evidence:
    """Arrays of one evaluation; all but the scores may be absent, and the report then says so.

    Attributes:
        scores: set -> score -> (N,), larger = more in-distribution. "id" is the ID set; sets that no result row
            names (controls, sets of an older evaluation) are not drawn.
        confidence, correct: (N_id,) largest softmax probability, and whether the prediction was right.
        pictures: set -> images and predictions, "id" among them.
        class_names: of the ID classes.
        focus: the score whose mistakes are shown; None takes the first.
        sphere: where the images lie on the unit sphere.
    """

    scores: Mapping[str, Mapping[str, ArrayLike]]
    confidence: ArrayLike | None = None
    correct: ArrayLike | None = None
    pictures: Mapping[str, Pictures] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    focus: str | None = None
    sphere: Sphere | None = None

    def __post_init__(self) -> None:
        if ID not in self.scores:
            raise FaroutError(f"the scores have no set {ID!r}, the ID images: a report needs it")
        for name, pictures in self.pictures.items():
            sizes = {len(pictures.images), np.size(pictures.predictions)}
            sizes |= {np.size(values) for values in self.scores.get(name, {}).values()}
            if len(sizes) > 1:
                raise FaroutError(f"{name}: images, predictions and scores differ in number {sorted(sizes)}")


@dataclass(frozen=True)
class View:
    """One entry of results.json with the names that its sets and scores go by, in the order of its rows."""

    entry: Entry

    @property
    def rows(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """(score, set) -> row."""
        return {(row["score"], row["ood"]): row for row in self.entry["rows"]}

    @property
    def scores(self) -> list[str]:
        return list(dict.fromkeys(row["score"] for row in self.entry["rows"]))

    @property
    def sets(self) -> dict[str, str]:
        """Set -> title, two sets of the same title told apart by their keys."""
        titles = {row["ood"]: str(row.get("title") or row["ood"]) for row in self.entry["rows"]}
        shared = [title for title in titles.values() if list(titles.values()).count(title) > 1]
        return {ood: f"{title} ({ood})" if title in shared else title for ood, title in titles.items()}

    @property
    def positive(self) -> str:
        return str(self.entry["protocol"].get("positive", "id"))

    @property
    def id_title(self) -> str:
        facts = self.entry["id"]
        return str((facts.get("info") or {}).get("title") or facts.get("dataset") or "ID")

    def titled(self, evidence: Evidence, score: str) -> dict[str, ArrayLike]:
        """Title -> scores, of the sets that have both a row and an array."""
        return {
            title: evidence.scores[ood][score]
            for ood, title in self.sets.items()
            if score in evidence.scores.get(ood, {})
        }

    def drawable(self, evidence: Evidence) -> list[str]:
        """The scores that have ID values to draw."""
        return [score for score in self.scores if score in evidence.scores[ID]]

    def focus(self, evidence: Evidence) -> str | None:
        """The score whose mistakes are shown."""
        names = self.drawable(evidence)
        return evidence.focus if evidence.focus in names else next(iter(names), None)
