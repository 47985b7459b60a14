"""Projected gradient descent in pixel space (Madry et al., ICLR 2018), for L-infinity and L2 balls within [0, 1].

It differs from the attack of wgrathwohl/JEM, which searches for each image's smallest epsilon with a library (foolbox):
growing it until the attack succeeds, then bisecting, and that 20 times over for 300 images. Here the epsilons are
given and every image is attacked at each, which answers the same question (who withstands epsilon?) without a search.
The official L2 distances are root mean squares over the values of an image; here they are plain norms, sqrt(3072) =
55.4 times as large for CIFAR. The projection onto ball and box together is exact; there the two follow each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from farout.errors import ConfigError

Classifier = Callable[[Tensor], Tensor]  # pixels (B, ...) in [0, 1] -> logits (B, C); each image by itself
Objective = Callable[[Tensor, Tensor], Tensor]  # logits (B, C), labels (B,) -> (B,)

NEWTON_STEPS = 12  # of the L2 projection, which mostly needs two or three


class Norm(ABC):
    """A ball of radius epsilon around an image, cut off at black and white."""

    name: ClassVar[str]

    @abstractmethod
    def start(self, images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        """(B, ...): a point drawn uniformly from each image's ball, then clipped to [0, 1]."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The step of length 1 in this norm along which a linear function with `gradient` (B, ...) grows fastest."""

    @abstractmethod
    def project(self, points: Tensor, images: Tensor, epsilon: float) -> Tensor:
        """The nearest point (in L2) to each of `points` that lies in its image's ball and in [0, 1]."""


class LInf(Norm):
    """max |x' - x| <= epsilon."""

    name = "linf"

    def start(self, images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return (images + epsilon * (2 * uniform - 1)).clamp_(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, points: Tensor, images: Tensor, epsilon: float) -> Tensor:
        return points.clamp((images - epsilon).clamp_min_(0), (images + epsilon).clamp_max_(1))


class L2(Norm):
    """||x' - x||_2 <= epsilon."""

    name = "l2"

    def start(self, images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
        normal = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        shape = (len(images), *[1] * (images.ndim - 1))
        radius = torch.rand(shape, generator=generator, device=images.device, dtype=images.dtype)
        radius = epsilon * radius ** (1 / max(1, images[:1].numel()))
        return (images + radius * self.direction(normal)).clamp_(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(gradient, dim=tuple(range(1, gradient.ndim)), keepdim=True)
        return gradient / size.clamp_min(torch.finfo(gradient.dtype).tiny)

    def project(self, points: Tensor, images: Tensor, epsilon: float) -> Tensor:
        """The nearest point's offset is clip(s * (point - image)) to the box for one s <= 1 (Lagrange's condition).

        The squared norm of that is concave and increasing in t = s^2, so Newton's method from t = 0 climbs to the root
        without passing it, in as many steps as it meets kinks; wherever it stops, the point is in the ball.
        """
        offset, pixels = points - images, tuple(range(1, images.ndim))
        room = torch.where(offset > 0, 1 - images, images).square()  # to black or white
        wanted, t = offset.square(), torch.zeros((len(images), *[1] * (images.ndim - 1))).to(images)
        for _ in range(NEWTON_STEPS):
            free = t * wanted < room
            left = epsilon**2 - room.masked_fill(free, 0).sum(pixels, keepdim=True)
            slope = wanted.masked_fill(~free, 0).sum(pixels, keepdim=True)
            t = (left / slope.clamp_min(torch.finfo(t.dtype).tiny)).clamp(0, 1)
        return (images + t.sqrt() * offset).clamp_(0, 1)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) bool: whether the largest of logits (B, C) is the label's; logits that are not finite are wrong."""
    return (logits.argmax(1) == labels) & logits.isfinite().all(1)


def wrong_log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) log of (1 - p(y|x)) / p(y|x).

    Its gradient has the direction of the cross-entropy's, but does not vanish where p(y|x) rounds to 1: a network that
    is sure of itself gets no robustness from underflow.
    """
    return _without(logits, labels).logsumexp(1) - logits.gather(1, labels[:, None])[:, 0]


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) by how much the largest wrong logit leads: above 0 where the image is misclassified."""
    return _without(logits, labels).amax(1) - logits.gather(1, labels[:, None])[:, 0]


def _without(logits: Tensor, labels: Tensor) -> Tensor:
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, labels[:, None], True)
    return logits.masked_fill(own, -torch.inf)


OBJECTIVES = (wrong_log_odds, margin)  # of one restart after the other


@dataclass(frozen=True)
class PGD:
    """`steps` steps of length `path` * epsilon / `steps` towards a wrong class, from `restarts` random starts.

    The first start climbs the log odds of the wrong classes together, which is the official attack's cross-entropy; the
    second goes for whichever wrong class is nearest (`margin`), which finds what their mixture misses; and so in turn.
    An image is fooled at the first look that is not right, the random start's and the last point's included; then it
    is left alone, as in the official attack. Of a classifier that is random itself (JEM-k) each look is a fresh draw.

    Args:
        norm: shape of the ball.
        path: how many epsilons the steps are long in all; 2 are needed from edge to edge.
    """

    norm: Norm
    steps: int = 40
    restarts: int = 2
    path: float = 2.5

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise ConfigError(f"steps={self.steps} and restarts={self.restarts} of an attack must be at least 1")

    def attack(
        self, classify: Classifier, images: Tensor, labels: Tensor, epsilon: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Images (B, ...) in [0, 1] with labels (B,), which nobody need classify right as they are.

        Returns (B,) whether each is fooled within epsilon, and (B, ...) the adversarial, or the image itself where none
        was found. `generator` draws the starts, on the images' device.
        """
        fooled, found = torch.zeros(len(images), dtype=torch.bool, device=images.device), images.clone()
        for restart in range(self.restarts):
            rows = (~fooled).nonzero()[:, 0]
            if len(rows) == 0:
                break
            start = self.norm.start(images[rows], epsilon, generator)
            climbed = OBJECTIVES[restart % len(OBJECTIVES)]
            fooled[rows], found[rows] = self._once(classify, climbed, images[rows], labels[rows], start, epsilon)
        return fooled, found

    def _once(
        self, classify: Classifier, climbed: Objective, images: Tensor, labels: Tensor, points: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """From `points` on; fooled images leave the batch, which is what makes weak networks quick to attack."""
        fooled, found = torch.zeros(len(images), dtype=torch.bool, device=images.device), images.clone()
        rows = torch.arange(len(images), device=images.device)
        for step in range(self.steps + 1):
            right, gradient = _look(classify, points, labels[rows], climbed if step < self.steps else None)
            fooled[rows[~right]], found[rows[~right]] = True, points[~right]
            rows, points = rows[right], points[right]
            if gradient is None or len(rows) == 0:
                break
            moved = points + self.path * epsilon / self.steps * self.norm.direction(gradient[right])
            points = self.norm.project(moved, images[rows], epsilon)
        return fooled, found

    def withstood(
        self,
        classify: Classifier,
        images: Tensor,
        labels: Tensor,
        epsilons: Sequence[float],
        generator: torch.Generator,
    ) -> Iterator[Tensor]:
        """(B,) bool for no attack, then for each epsilon, from small to large: right under every restart.

        Images that are wrong as they are are not attacked, nor are those again that a smaller ball sufficed for.
        """
        if list(epsilons) != sorted(epsilons):
            raise ConfigError(f"epsilons {' '.join(f'{e:g}' for e in epsilons)} must grow")
        right, _ = _look(classify, images, labels)
        yield right.clone()
        for epsilon in epsilons:
            rows = right.nonzero()[:, 0]
            if len(rows):
                right[rows] = ~self.attack(classify, images[rows], labels[rows], epsilon, generator)[0]
            yield right.clone()


def _look(
    classify: Classifier, points: Tensor, labels: Tensor, climbed: Objective | None = None
) -> tuple[Tensor, Tensor | None]:
    """(B,) whether points (B, ...) are classified right, and by them the gradient of what is climbed, if anything."""
    if climbed is None:
        with torch.no_grad():
            return correct(classify(points), labels), None
    with torch.inference_mode(False), torch.enable_grad():
        leaf = points.detach().clone().requires_grad_()
        logits = classify(leaf)
        (gradient,) = torch.autograd.grad(climbed(logits, labels).sum(), leaf)
    return correct(logits.detach(), labels), gradient.nan_to_num_(0, 0, 0)  # such an image stays where it is
