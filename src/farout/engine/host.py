"""To a GPU and back without waiting for it at every batch; on a CPU nothing moves."""

import torch
from torch import Tensor

BLOCK_BYTES = 2**28  # of results that stay on a GPU until they are copied to the host together


def to_device(rows: Tensor, device: torch.device) -> Tensor:
    """The rows (B, ...) on the device. A GPU reads them from pinned memory while the host goes on."""
    if rows.device == device or device.type != "cuda":
        return rows.to(device)
    # PyTorch gives this memory to others only after the copy has read it.
    return rows.pin_memory().to(device, non_blocking=True)


class HostRows:
    """The results of batch after batch, joined on the CPU in the end.

    A GPU's stay there until they are BLOCK_BYTES: a copy to the host waits for all work before it, and the next batch
    would be launched only then.
    """

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self.block_bytes = block_bytes
        self._there: list[Tensor] = []
        self._there_bytes = 0
        self._here: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """The next rows (B, ...), on any device."""
        if rows.device.type == "cpu":
            self._here.append(rows)
            return
        self._there.append(rows)
        self._there_bytes += rows.nbytes
        if self._there_bytes >= self.block_bytes:
            self._fetch()

    def _fetch(self) -> None:
        self._here.append(torch.cat(self._there).cpu())
        self._there.clear()
        self._there_bytes = 0

    def all(self) -> Tensor:
        """(N, ...), on the CPU; raises ValueError where nothing was added."""
        if self._there:
            self._fetch()
        if not self._here:
            raise ValueError("there are no rows: the set is empty")
        return torch.cat(self._here)
