"""How the embeddings of a run lie on the unit sphere: the geometry of an evaluation in degrees, and its picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from farout.config.coerce import class_of
from farout.data import ImageSet
from farout.errors import FaroutError
from farout.metrics import class_directions, compactness_degrees, dispersion_degrees, nearest_degrees
from farout.metrics.linear_probe import linear_probe
from farout.report.evidence import ID, Sphere
from farout.report.figures.mistakes import class_name
from farout.runs.inputs import capped
from farout.runs.projection import PlaneProjection
from farout.runs.run import Run
from farout.runs.scoring import Predictor
from farout.scores import Outputs

Embedding = Callable[[Tensor], Tensor]  # penultimate features (N, D) -> points (N, E) of the space that is measured


@dataclass
class Space:
    """One space that images lie in, a direction for each class, and what was measured there so far.

    Attributes:
        embed: what makes points of penultimate features.
        directions: (K, E) of the classes that have one.
        classes: (K,) which classes these are.
        source: where the directions come from, in words.
        id: measures of the ID images; nearest: degrees to the nearest direction by set.
        plane_projection: keeps what a picture of this space needs.
    """

    embed: Embedding
    directions: Tensor
    classes: Tensor
    source: str
    id: dict[str, Any] = field(default_factory=dict)
    nearest: dict[str, float] = field(default_factory=dict)
    votes: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    plane_projection: PlaneProjection | None = None

    def predictions(self, features: Tensor) -> NDArray[np.int64]:
        """(N,) the class of the nearest direction."""
        cosines = F.normalize(self.embed(features).double(), dim=1) @ F.normalize(self.directions.double(), dim=1).T
        found: NDArray[np.int64] = self.classes[cosines.argmax(1)].numpy()
        return found

    def measure(self, name: str, vote: str, outputs: Outputs) -> None:
        """Measure the images of one set; "id" is the ID test set. Points without a direction are counted apart."""
        points = self.embed(outputs.features)
        there = _has_direction(points)
        if not bool(there.all()):
            self.left_out[name] = int((~there).sum())
        if bool(there.any()):
            self.nearest[name] = nearest_degrees(points[there], self.directions)
            self.votes[name] = vote
            if self.plane_projection is not None:
                self.plane_projection.add(name, points[there], self._places(outputs)[there] if name == ID else None)
        if name == ID:
            assert outputs.labels is not None
            places = self._places(outputs)
            known = there & (places >= 0)
            right = self.predictions(outputs.features) == outputs.labels.numpy()
            compactness = compactness_degrees(points[known], self.directions, places[known])
            self.id = {"compactness": compactness, "nearest_class_accuracy": float(right.mean())}

    def _places(self, outputs: Outputs) -> Tensor:
        """(N,) the place of each image's class among the directions; -1 for a class that has none."""
        assert outputs.labels is not None
        places = torch.searchsorted(self.classes, outputs.labels).clamp_max(len(self.classes) - 1)
        return torch.where(self.classes[places] == outputs.labels, places, -1)

    def facts(self) -> dict[str, Any]:
        """For the record, angles in degrees: dispersion, compactness, and separability by OOD set and in the mean."""
        apart = {name: angle - self.nearest["id"] for name, angle in self.nearest.items() if name != "id"}
        ballots: dict[str, list[float]] = {}
        for name, angle in apart.items():
            ballots.setdefault(self.votes[name], []).append(angle)
        return {
            "directions": self.source,
            "dispersion": dispersion_degrees(self.directions),
            **self.id,
            "nearest": self.nearest,
            "separability": apart,
            "mean_separability": float(np.mean([np.mean(own) for own in ballots.values()])) if ballots else None,
            "left_out": self.left_out,
        }

    def sphere(self, name: str, class_names: Sequence[str]) -> Sphere | None:
        """What the pictures of this space are drawn from; None where it has none."""
        seen = self.plane_projection
        if seen is None or seen.plane is None or seen.labels is None:
            return None
        names = [class_name(int(label), class_names) for label in self.classes]
        share = seen.plane.share.float().numpy()
        return Sphere(name, share, seen.plane.project(seen.directions), names, seen.labels, seen.points, seen.angles)


class Geometry:
    """The spaces of one run: its penultimate features, and the unit vectors of its projection head where it has one.

    Directions are the means of each class's unit vectors over training images, never test images, and in the
    projection's space the method's own prototypes where it keeps any. A network that collapsed to a point has no
    geometry: the record then says so, and the evaluation goes on.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.spaces: dict[str, Space] = {}
        self.trouble: str | None = None
        limit = predictor.settings.geometry_images
        if limit == 0:
            self.trouble = "not asked for (geometry_images=0)"
            return
        try:
            images = capped(predictor.train_images(), limit)
            self.spaces = _spaces(predictor, predictor.outputs(images))
            shown = self.spaces[self.shown]
            shown.plane_projection = PlaneProjection(shown.directions)
        except FaroutError as error:
            self.trouble = str(error)

    def measure(self, name: str, image_set: ImageSet, outputs: Outputs) -> None:
        """Measure a set in every space; "id" is the ID test set."""
        try:
            for space in self.spaces.values():
                space.measure(name, image_set.info.get("vote") or name, outputs)
        except FaroutError as error:
            self.trouble = f"{name}: {error}"

    def predictions(self, outputs: Outputs) -> NDArray[np.int64] | None:
        """(N,) the class of the nearest direction among the features' own; None where there are none."""
        return self.spaces["features"].predictions(outputs.features) if "features" in self.spaces else None

    @property
    def shown(self) -> str:
        """The space of the picture: the one that the method shapes, where there is a projection head."""
        return "embedding" if "embedding" in self.spaces else "features"

    def sphere(self, class_names: Sequence[str]) -> Sphere | None:
        """What the pictures are drawn from, class names by label; None where there is no geometry."""
        return self.spaces[self.shown].sphere(self.shown, class_names) if self.trouble is None else None

    def facts(self) -> dict[str, Any]:
        """Measures by space; or {"reason": why there are none}."""
        if self.trouble is None:
            try:
                return {name: space.facts() for name, space in self.spaces.items()}
            except FaroutError as error:
                self.trouble = str(error)
        return {"reason": self.trouble}


def _spaces(predictor: Predictor, train: Outputs) -> dict[str, Space]:
    run = predictor.run
    spaces = {"features": _by_class_means(lambda features: features, train)}
    if hasattr(class_of(run.targets["backbone"], "backbone"), "project"):
        project = _projection(predictor)
        prototypes = method_state(run).get("prototypes")
        spaces["embedding"] = (
            _by_class_means(project, train) if prototypes is None else _by_prototypes(project, prototypes)
        )
    return spaces


def _projection(predictor: Predictor) -> Embedding:
    """The projection head, applied on the network's device to features that lie on the CPU."""

    @torch.inference_mode()
    def project(features: Tensor) -> Tensor:
        points: Tensor = predictor.model.project(features.to(predictor.device))  # type: ignore[operator]
        return points.cpu()

    return project


def _by_class_means(embed: Embedding, train: Outputs) -> Space:
    """Directions of the classes that the training images have."""
    points = embed(train.features)
    assert train.labels is not None
    there = _has_direction(points)
    if not bool(there.any()):
        raise FaroutError("no training feature has a direction: the network has collapsed, train it again")
    classes, places = train.labels[there].unique(return_inverse=True)
    directions = class_directions(points[there], places, len(classes))
    return Space(embed, directions, classes, f"class means of {len(train):,} training images")


def _by_prototypes(embed: Embedding, prototypes: Tensor) -> Space:
    """The method's own directions; a class without a prototype has zeros."""
    classes = _has_direction(prototypes).nonzero().flatten()
    return Space(embed, prototypes[classes], classes, "prototypes of the method")


def _has_direction(points: Tensor) -> Tensor:
    """(N,) rows of (N, D) that are finite and not zero."""
    return points.isfinite().all(dim=1) & (points != 0).any(dim=1)


def method_state(run: Run) -> dict[str, Tensor]:
    """What the method itself learnt, by name (CIDER: "prototypes" (C, D)); empty where it learns nothing."""
    return run.method_tensors() if run.method_state.exists() else {}


def nearest_class_accuracy(train: Outputs, outputs: Outputs) -> float | None:
    """Share of images whose feature points to their own class's mean training feature; None where there is no mean."""
    assert outputs.labels is not None
    try:
        space = _by_class_means(lambda features: features, train)
    except FaroutError:
        return None
    return float((space.predictions(outputs.features) == outputs.labels.numpy()).mean())


def probed(predictor: Predictor, id_outputs: Outputs) -> Mapping[str, Any]:
    """Accuracy of a linear probe on the penultimate features, fitted on what the run trained on."""
    train = predictor.outputs(predictor.train_images())
    assert train.labels is not None and id_outputs.labels is not None
    return linear_probe(
        train.features.numpy(), train.labels.numpy(), id_outputs.features.numpy(), id_outputs.labels.numpy()
    )
