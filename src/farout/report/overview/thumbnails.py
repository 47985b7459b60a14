"""A few images of each set as one small picture: from the data store, where it holds the very set that was measured."""

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from farout.data.paths import is_set_name
from farout.data.stored import open_stored, read_meta
from farout.errors import FaroutError
from farout.report.evidence import Pictures
from farout.report.overview.curves import sampled

SHOWN, COLUMNS, SIDE = 100, 10, 32  # images of a set, in a row of its picture, pixels of each
QUALITY = 72  # of the JPEG


def contact_sheet(known: Mapping[str, Any], store: Path) -> dict[str, Any] | None:
    """A JPEG of evenly taken images of a set, and their places among those whose acceptance is kept.

    `known` is a set of `curves_of`. None where the store does not hold that set, or not whole.
    """
    folder = _stored_as(known["stored"], store)
    if folder is None:
        return None
    try:
        images = open_stored(folder).images
    except FaroutError:
        return None
    rows = sampled(len(images))
    places = sampled(len(rows), SHOWN)
    if len(images) != known["n"] or images.shape[1] != 3:
        return None
    pixels = Pictures(images, np.zeros(len(images))).rows(rows[places])
    return {"jpeg": _jpeg(pixels), "places": places.tolist(), "columns": COLUMNS, "side": SIDE}


def _stored_as(wanted: Mapping[str, Any], store: Path) -> Path | None:
    """The folder of the store with the set of that name and hash."""
    name, digest = wanted["name"], wanted["sha256"]
    if not isinstance(name, str) or not isinstance(digest, str) or not is_set_name(name):
        return None
    metas = sorted((store / name).glob("*/meta.json"))
    return next((path.parent for path in metas if _hash_of(path.parent) == digest), None)


def _hash_of(folder: Path) -> str | None:
    try:
        return str(read_meta(folder)["sha256"])
    except FaroutError:
        return None


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    """(k, 3, H, W) as one picture of rows, base64."""
    sheet = Image.new("RGB", (COLUMNS * SIDE, SIDE * math.ceil(len(pixels) / COLUMNS)))
    for i, image in enumerate(pixels):
        part = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        if part.size != (SIDE, SIDE):
            part = part.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(part, (SIDE * (i % COLUMNS), SIDE * (i // COLUMNS)))
    data = io.BytesIO()
    sheet.save(data, format="jpeg", quality=QUALITY)
    return base64.b64encode(data.getvalue()).decode("ascii")
