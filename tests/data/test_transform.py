"""Normalisation against torchvision's, and crops and flips for what they are: one window of the padded image each."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision import transforms

from farout.config.compose import compose_settings
from farout.data.transform import Transform, cut_by_copying, cut_by_gathering, random_crop_flip
from farout.errors import ConfigError

MEAN, STD = (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)


def images(n: int, side: int = 8) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 3, side, side), np.uint8))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalisation_equals_torchvisions_exactly():
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    pixels[:16, :16] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    official = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])(Image.fromarray(pixels))
    ours = Transform(MEAN, STD, True, 4)(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    assert ours.dtype == torch.float32
    assert torch.equal(ours[0], official)


def test_input_is_left_alone():
    transform, given = Transform(MEAN, STD, True, 4), torch.rand(2, 3, 8, 8)
    before = given.clone()
    scaled = transform(given)
    assert torch.equal(given, before)
    assert torch.allclose(scaled * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1), given)
    assert torch.equal(transform(given, raw=True), before), "raw values pass as they are"


def windows(image: torch.Tensor, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop of the padded image, and its mirror image, by content."""
    side = image.shape[-1]
    padded = torch.nn.functional.pad(image, (padding,) * 4)
    found = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[:, top : top + side, left : left + side]
            found[crop.numpy().tobytes()] = (top, left, False)
            found[crop.flip(-1).contiguous().numpy().tobytes()] = (top, left, True)
    return found


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("crops", "flips"), [(True, True), (True, False), (False, True)])
def test_a_cpu_copies_what_a_gpu_gathers(reflect, dtype, crops, flips):
    """Equal to the bit, of images that lie in memory in whatever way."""
    given = images(9, 10).to(dtype).transpose(2, 3)[:, :, :8]
    mirrored = torch.rand(9, 1, generator=generator()) < 0.5 if flips else None
    offsets = torch.randint(0, 7, (2, 9, 1), generator=generator(1)) if crops else None
    copied, gathered = (cut(given, 3, mirrored, offsets, reflect) for cut in (cut_by_copying, cut_by_gathering))
    assert torch.equal(copied, gathered) and copied.is_contiguous()
    assert copied.data_ptr() != given.data_ptr()


def test_every_result_is_a_window_and_all_are_equally_likely():
    n, padding = 4000, 2
    one = images(1)
    known = windows(one[0], padding)
    assert len(known) == 2 * 25
    results = random_crop_flip(one.expand(n, -1, -1, -1), padding, True, generator())
    drawn = [known[result.numpy().tobytes()] for result in results.contiguous()]
    counts = [drawn.count(window) for window in known.values()]
    assert stats.chisquare(counts).pvalue > 0.01


def test_the_official_padding_is_black_before_normalisation():
    transform = Transform(MEAN, STD, False, 4)
    white = torch.full((64, 3, 8, 8), 255, dtype=torch.uint8)
    values = transform.augmented(white, generator()).permute(1, 0, 2, 3).flatten(1)
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        allowed = torch.tensor([-mean / std, (1 - mean) / std])
        assert torch.allclose(values[channel].unique().sort().values, allowed)


def test_flip_alone_and_crop_alone():
    given = images(200)
    flipped = random_crop_flip(given, 0, True, generator())
    kinds = [torch.equal(a, b) for a, b in zip(flipped, given, strict=True)]
    assert all(torch.equal(a, b if same else b.flip(-1)) for a, b, same in zip(flipped, given, kinds, strict=True))
    assert 70 < sum(kinds) < 130
    cropped = random_crop_flip(given, 2, False, generator())
    for result, image in zip(cropped, given, strict=True):
        assert not windows(image, 2)[result.contiguous().numpy().tobytes()][2]


def test_the_generator_decides():
    transform, given = Transform(MEAN, STD, True, 4), images(20)
    assert torch.equal(transform.augmented(given, generator(3)), transform.augmented(given, generator(3)))
    assert not torch.equal(transform.augmented(given, generator(3)), transform.augmented(given, generator(4)))


def test_no_augmentation_is_the_test_transform():
    transform, given = Transform(MEAN, STD, False, 0), images(3)
    assert torch.equal(transform.augmented(given, generator()), transform(given))


def test_outlier_modes():
    given = images(100)
    same, flip, none = (Transform((0, 0, 0), (1, 1, 1), True, 2, mode) for mode in ("same", "flip", "none"))
    plain = none(given)
    assert torch.equal(none.augmented(given, generator(), outliers=True), plain)
    only_flipped = flip.augmented(given, generator(), outliers=True)
    for result, image in zip(only_flipped, plain, strict=True):
        assert torch.equal(result, image) or torch.equal(result, image.flip(-1))
    assert not torch.equal(only_flipped, plain)
    assert torch.equal(
        same.augmented(given, generator(), outliers=True), same.augmented(given, generator(), outliers=False)
    )
    for transform in (flip, none):
        labelled = transform.augmented(given, generator(), outliers=False)
        assert torch.equal(labelled, same.augmented(given, generator())), "the mode is about outliers alone"


def test_svhns_outliers_are_flipped_where_its_own_images_are_not():
    """As the official SVHN scripts have it: digits are never mirrored, the tiny images beside them are."""
    settings = compose_settings(["id_data=svhn", "method=oe"])
    transform, given = settings.transform.build(), images(100)
    assert torch.equal(transform.augmented(given, generator()), transform(given))
    outliers = transform.augmented(given, generator(), outliers=True)
    flipped = [not torch.equal(result, image) for result, image in zip(outliers, transform(given), strict=True)]
    expected = [image.flip(-1) if turned else image for image, turned in zip(transform(given), flipped, strict=True)]
    assert torch.equal(outliers, torch.stack(expected))
    assert 30 < sum(flipped) < 70


def test_outliers_of_an_unaugmented_transform_stay_so():
    given = images(10)
    transform = Transform(MEAN, STD, flip=False, crop_padding=0, outlier_augmentation="same")
    assert torch.equal(transform.augmented(given, generator(), outliers=True), transform(given))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"std": (0.0, 1.0, 1.0)}, "those of std above 0"),
        ({"mean": (0.5,)}, "three values"),
        ({"crop_padding": -1}, "crop_padding=-1 must not be negative"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Transform(**{"mean": MEAN, "std": STD, "flip": True, "crop_padding": 4, **values})
