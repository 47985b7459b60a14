"""Outputs of forward passes on disk, so that a further score of the same network and images needs no network.

A key is a hash of everything that the outputs follow from: the weights' bytes, the network and transform that read
them, the pixels themselves and the kind of device. Changed weights, another transform or another selection of images
therefore never meet an old entry.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from farout.data import ImageSet
from farout.engine.progress import say
from farout.errors import FaroutError, UnwritableError
from farout.files import remove_leftovers, write_bytes
from farout.scores import Outputs

GIB = 2**30
LAYOUT = 1  # of an entry; a new number leaves the old entries to eviction


class OutputCache:
    """Logits and features (float32) by key, one safetensors file each, under a size limit.

    Args:
        folder: where the entries lie; made when the first one is written.
        limit_gib: above this, the entries used longest ago go first; 0 keeps nothing.
    """

    def __init__(self, folder: Path, limit_gib: float) -> None:
        self.folder = folder
        self.limit = int(limit_gib * GIB)
        remove_leftovers([folder])

    def get(self, key: str, labels: torch.Tensor | None) -> Outputs | None:
        """The outputs under `key` with the set's own labels; None where there are none, or where a file is damaged."""
        path = self._path(key)
        try:
            tensors = load_file(path)
            with suppress(OSError):  # on a disk that is only read nothing ages
                path.touch()
            return Outputs(tensors["logits"], tensors["features"], labels)
        except (OSError, SafetensorError, KeyError, ValueError, FaroutError):
            return None

    def put(self, key: str, outputs: Outputs) -> None:
        """Keep `outputs` (unless they alone exceed the limit), then let the oldest entries go until the rest fits."""
        tensors = {"logits": outputs.logits.contiguous(), "features": outputs.features.contiguous()}
        if sum(tensor.nbytes for tensor in tensors.values()) > self.limit:
            return
        try:
            write_bytes(self._path(key), save(tensors))
            self._evict()
        except (UnwritableError, OSError) as problem:  # nothing depends on it
            self.limit = 0
            say(f"  note: outputs are not kept: {problem}")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _evict(self) -> None:
        """Another process may delete the same entries at the same time."""
        known = []
        for path in self.folder.glob("*.safetensors"):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            known.append((facts.st_mtime_ns, facts.st_size, path))
        total = sum(size for _, size, _ in known)
        for _, size, path in sorted(known):
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size


def network_key(weights: Path, facts: Mapping[str, Any], device: torch.device) -> str:
    """Hash of a network in use: its weights file, `facts` (network, transform), and the kind of device."""
    digest = hashlib.sha256(weights.read_bytes())
    digest.update(json.dumps([LAYOUT, dict(facts), device.type], sort_keys=True).encode())
    return digest.hexdigest()


def output_key(network: str, image_set: ImageSet) -> str:
    """Hash of a network (see `network_key`) and the very pixels (or files), in their order, that it is to see."""
    if not isinstance(image_set.images, torch.Tensor):  # files, known by the hash of their content
        return hashlib.sha256(f"{network}/{image_set.images.digest}".encode()).hexdigest()
    images = image_set.images.contiguous().numpy()
    digest = hashlib.sha256(f"{network}/{images.dtype}/{images.shape}/{image_set.raw}/".encode())
    digest.update(images.reshape(-1).data)
    return digest.hexdigest()
