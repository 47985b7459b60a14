"""What chance decided of random views, before anything is computed from it."""

from dataclasses import dataclass

from torch import Tensor

from farout.data.colour import Jitter


@dataclass(frozen=True)
class Draws:
    """The random draws of n views: crop boxes (n, 4), mirrored (n,), colour jitter, grey (n,); None: not done."""

    boxes: Tensor | None
    mirrored: Tensor | None
    jitter: Jitter | None
    grey: Tensor | None

    def __getitem__(self, views: slice) -> "Draws":
        """The draws of some of the views."""
        boxes = None if self.boxes is None else self.boxes[views]
        mirrored = None if self.mirrored is None else self.mirrored[views]
        jitter = None if self.jitter is None else self.jitter[views]
        return Draws(boxes, mirrored, jitter, None if self.grey is None else self.grey[views])
