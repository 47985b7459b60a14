import json
from pathlib import Path

import numpy as np
from tiny_images import epoch_offsets, image_index, read_tiny_images

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_energy_oe.json").read_text())["tiny_images"]


def test_bytes_are_in_fortran_order():
    raw = np.random.RandomState(13).randint(0, 256, 3072 * 4).astype(np.uint8)
    (image,) = read_tiny_images(raw, [2])
    for place, value in VECTORS["fortran"]["expect"].items():
        if place == "sum":
            assert image.sum() == value
        else:
            row, column, channel = json.loads(place)
            assert image[channel, row, column] == value
    assert np.array_equal(read_tiny_images(raw.tobytes(), [3, 2])[1], image)


def test_index_map_with_the_official_modulus_and_exclusion():
    for case in VECTORS["index_map"]:
        got = image_index(case["index"], case["offset"], {35606}, np.random.RandomState(0))
        assert got == case["image_index"]


def test_epoch_offsets():
    for name, offsets in VECTORS["epoch_offsets"].items():
        if name.startswith("seed_"):
            assert epoch_offsets(int(name.removeprefix("seed_")), len(offsets)) == offsets
