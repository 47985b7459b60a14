"""torchvision's ResNet-34 with CIDER's projection head, fine-tuned from ImageNet weights: its network for ImageNet-100.

The trunk is torchvision's own (7x7 stem, max-pooling). Frozen parts keep their weights; their batch norm stays in
training mode like everything else, so its running statistics follow the new data, as in the official code.
"""

import hashlib
import re
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from farout.backbones.foreign import plain_names
from farout.backbones.projected_resnet import Projected, Projection, projection_head
from farout.backbones.weight_sets import weight_sets
from farout.errors import FaroutError

PUBLISHED = "imagenet1k_v1"  # torchvision's name of its weights
MARK = re.compile(r"sha256-[0-9a-f]{8}")  # how a run's record names the file that training started from


class ImageNetResNet34(Projected):
    """images (B, 3, H, W) -> features (B, 512) -> logits (B, C), or unit vectors (B, projection_dim).

    Args:
        num_classes: C.
        weights: what the trunk starts from: "imagenet1k_v1" (torchvision's cache, or a download), a file with
            torchvision's names (.pth or .safetensors; wrapped or not), or null for chance. Nothing is read before
            `load_pretrained`.
        trainable: parts of the trunk that train, e.g. ["layer4"]; null: all of it. The heads always train.
        projection_dim, projection: as of `ProjectedResNet`.

    Raises:
        ConfigError: the trunk has no part of that name.
    """

    head_name = "linear"
    foreign_names: ClassVar[dict[str, str]] = {"encoder.": "trunk.", "head.": "projection.", "fc.": "linear."}

    def __init__(
        self,
        num_classes: int,
        weights: str | None = None,
        trainable: list[str] | None = None,
        projection_dim: int = 128,
        projection: Projection = "mlp",
    ) -> None:
        from torchvision.models import resnet34  # seconds, for this network alone

        super().__init__(num_classes, 512)
        self.weights = weights
        self.trunk = resnet34()
        self.trunk.fc = nn.Identity()
        self.projection = projection_head(512, projection_dim, projection)
        self.linear = nn.Linear(512, num_classes)
        if trainable is not None:
            self.set_trainable(trainable)

    @property
    def trunk_parts(self) -> dict[str, nn.Module]:
        return {name: part for name, part in self.trunk.named_children() if any(True for _ in part.parameters())}

    def _features(self, images: Tensor) -> Tensor:
        return self.trunk(images)

    def load_pretrained(self) -> None:
        """Give the trunk the weights that training starts from; its last layer, for 1,000 classes, is left out.

        Raises FaroutError where they cannot be had, or do not fit.
        """
        if self.weights is None:
            return
        path = weights_file(self.weights)
        state = self._own(path)
        try:
            self.trunk.load_state_dict(state, strict=False)
        except (RuntimeError, AttributeError, TypeError) as error:
            first = str(error).splitlines()[-1].strip()
            raise FaroutError(f"{path} does not fit torchvision's resnet34 ({first}): give its state_dict") from None
        if not all(value.isfinite().all() for value in self.trunk.state_dict().values()):
            raise FaroutError(f"{path} has NaN or infinity in its weights: take another file")

    def _own(self, path: Path) -> dict[str, Tensor]:
        """The one set of weights of a file that has the trunk's names, behind a prefix or not; FaroutError without."""
        ours = self.trunk.state_dict().keys()
        needed = {name for name in ours if not name.endswith("num_batches_tracked")}
        sets = weight_sets(_read(path))
        found: dict[tuple[int, ...], tuple[str, dict[str, Tensor]]] = {}
        for part in [inner for outer in sets for inner in map(outer.behind, outer.prefixes(len(needed) / 2))]:
            state = {name: v for name, v in plain_names(part.state).items() if not name.startswith("fc.")}
            if needed <= state.keys() <= ours:
                found.setdefault(tuple(map(id, state.values())), (part.label, state))
        if len(found) > 1:
            labels = ", ".join(label or "the top" for label, _ in found.values())
            raise FaroutError(f"{path} holds several sets of weights ({labels}): save the one to start from alone")
        if not found:
            reason = "its tensors have other names" if sets else "it holds none"
            raise FaroutError(f"{path} does not fit torchvision's resnet34 ({reason}): give its state_dict")
        return next(iter(found.values()))[1]


def weights_mark(weights: str) -> str:
    """`sha256-1a2b3c4d` of the file that `weights` means, wherever it lies; the published one needs no file.

    Raises FaroutError where the file is not there.
    """
    if weights == PUBLISHED:
        return f"sha256-{_published_hash()}"
    if MARK.fullmatch(weights):
        return weights
    return f"sha256-{_hash(_local(weights))}"


def weights_file(weights: str) -> Path:
    """The file that `weights` means, downloaded if need be; raises FaroutError that says where to put it."""
    if weights != PUBLISHED:
        return _local(weights)
    url, folder = _published_url(), Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    instead = f"download {url} to {folder}, or give backbone.weights=FILE (null starts from chance)"
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), _published_hash(), progress=False)
        except (OSError, URLError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise FaroutError(f"ResNet-34's ImageNet weights cannot be downloaded ({reason}): {instead}") from None
    if _hash(path) != _published_hash():
        raise FaroutError(f"{path} is damaged: remove it and {instead}")
    return path


def _published_hash() -> str:
    """The beginning of the file's SHA-256, which torchvision puts into its name."""
    return _published_url().rpartition("-")[2].removesuffix(".pth")


def _published_url() -> str:
    from torchvision.models import ResNet34_Weights

    return str(ResNet34_Weights.IMAGENET1K_V1.url)


def _local(weights: str) -> Path:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FaroutError(f"backbone.weights={weights} is not there: give a file, {PUBLISHED}, or null for chance")
    return path


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, EOFError) as error:
        raise FaroutError(f"{path} cannot be read ({type(error).__name__}): give a state_dict in .pth") from None
    except Exception as error:  # whatever unpickling of a foreign file meets
        raise FaroutError(f"{path} holds more than tensors ({type(error).__name__}): give a state_dict") from None
