"""What an offline W&B run wrote, read back from its own file."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

HEADER, BLOCK = 7, 32768
FULL, LAST = 1, 4

Record = wandb_internal_pb2.Record


def records(path: Path) -> list[Record]:
    """The records of a .wandb file: a LevelDB log (32 KiB blocks of checksum, length, kind, bytes) of protobufs."""
    data, position, parts, found = path.read_bytes(), HEADER, b"", []
    assert data.startswith(b":W&B")
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        parts += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def of_kind(log: Sequence[Record], kind: str) -> list[Any]:
    """The records of a kind, in their order."""
    return [getattr(record, kind) for record in log if record.WhichOneof("record_type") == kind]


def items(log: Sequence[Record], kind: str) -> list[dict[str, Any]]:
    """The updates of all records of a kind (history, summary), as dicts by (dotted) key."""
    found = []
    for update in of_kind(log, kind):
        entries = update.item if kind == "history" else update.update
        found.append({e.key or ".".join(e.nested_key): json.loads(e.value_json) for e in entries})
    return found
