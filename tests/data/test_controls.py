import io

import numpy as np
from PIL import Image

from farout.data.controls import as_jpeg, resampled


def test_resampled_takes_away_detail_and_keeps_the_rest():
    flat = np.full((2, 3, 32, 32), 90, np.uint8)
    assert np.array_equal(resampled(flat), flat)
    checks = np.tile(np.indices((32, 32)).sum(0) % 2 * 255, (1, 3, 1, 1)).astype(np.uint8)
    got = resampled(checks)
    assert got.shape == checks.shape and got.dtype == np.uint8 and got.std() < 20


def test_as_jpeg_is_pillows_default_codec():
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image[0].transpose(1, 2, 0)).save(buffer, "JPEG")  # default: quality 75, 4:2:0
    expected = np.asarray(Image.open(buffer)).transpose(2, 0, 1)
    assert np.array_equal(as_jpeg(image)[0], expected)
    better = as_jpeg(image, quality=95).astype(int) - image
    assert np.abs(better).mean() < np.abs(as_jpeg(image).astype(int) - image).mean()
