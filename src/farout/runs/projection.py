"""What the pictures of an embedding are drawn from: points on a plane, and angles to the nearest direction."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from farout.report.evidence import ID

SHOWN = 500  # points of a set in the picture, evenly taken: enough to see, and the figure stays small


@dataclass
class Plane:
    """The first two principal components of points in space, and how much of their variance these explain.

    Attributes:
        centre: (E,) mean; axes: (E, 2), each with its largest coefficient positive; share: (2,).
    """

    centre: Tensor
    axes: Tensor
    share: Tensor

    @classmethod
    def fit(cls, points: Tensor) -> "Plane":
        """Fitted on (N, E), in float64."""
        centre = points.mean(dim=0)
        apart = points - centre
        variances, components = torch.linalg.eigh(apart.T @ apart)
        axes = components[:, -2:].flip(1)
        signs = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
        total = variances.sum().clamp_min(torch.finfo(variances.dtype).tiny)
        return cls(centre, axes * signs, variances[-2:].flip(0).clamp_min(0) / total)

    def project(self, points: Tensor) -> NDArray[np.float32]:
        """(N, 2) of (N, E)."""
        found: NDArray[np.float32] = ((points - self.centre) @ self.axes).float().numpy()
        return found


@dataclass
class PlaneProjection:
    """Embeddings projected to a plane, set by set; ID, the first set, gives the plane (its principal components).

    Attributes:
        directions: (K, E) of the classes.
        plane: of the ID images' unit vectors and the directions.
        labels: of the kept ID points; points: (n, 2) and angles: (N,) by set, as in `Sphere`.
    """

    directions: Tensor
    plane: Plane | None = None
    labels: NDArray[np.int64] | None = None
    points: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    angles: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directions = F.normalize(self.directions.double(), dim=1)

    def add(self, name: str, points: Tensor, places: Tensor | None) -> None:
        """Points (N, E) that have a direction; of ID also (N,) which direction is their class's own, or -1."""
        units = F.normalize(points.double(), dim=1)
        if name == ID:
            self.plane = Plane.fit(torch.cat([units, self.directions]))
        if self.plane is None:
            return
        chosen = torch.linspace(0, len(units) - 1, min(len(units), SHOWN), dtype=torch.float64).round().long()
        self.points[name] = self.plane.project(units[chosen])
        cosines = (units @ self.directions.T).amax(dim=1).clamp(-1, 1)
        self.angles[name] = torch.rad2deg(torch.acos(cosines)).float().numpy()
        if places is not None:
            self.labels = places[chosen].numpy()
