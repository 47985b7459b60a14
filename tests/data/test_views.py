"""Random views against torchvision: what is drawn, by distribution; what is computed from it, by value.

Every statistical test has a fixed seed and rejects at the 0.1 % level, so a right sampler passes for good.
"""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import ColorJitter, RandomResizedCrop, v2
from torchvision.transforms import functional as official

from farout.config.compose import compose_settings
from farout.data.colour import BRIGHTNESS, CONTRAST, HUE, SATURATION, Jitter, apply_jitter, grayscale_, random_jitter
from farout.data.crop import crop_and_resize, random_crop_boxes
from farout.data.draws import Draws
from farout.data.streams import EpochShuffle
from farout.data.transform import Transform
from farout.data.views import ViewTransform
from farout.engine.batches import DeviceBatches, Stream
from farout.errors import ConfigError

LEVEL = 0.001
CPU = torch.device("cpu")
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.244, 0.262)
AMOUNTS = (0.4, 0.4, 0.4, 0.1)
RATIO = (3 / 4, 4 / 3)
PUBLISHED = {
    "mean": MEAN,
    "std": STD,
    "views": 2,
    "size": None,
    "crop_scale": (0.2, 1.0),
    "crop_ratio": RATIO,
    "flip": True,
    "jitter": AMOUNTS,
    "jitter_probability": 0.8,
    "grayscale_probability": 0.2,
}


def views(**changes) -> ViewTransform:
    return ViewTransform(**{**PUBLISHED, **changes})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(n: int, height: int = 32, width: int = 32) -> Tensor:
    """uint8 (n, 3, H, W): smooth colours, saturated ones, grey ones, black and white, and noise."""
    rng = np.random.default_rng(0)
    small = torch.from_numpy(rng.uniform(0, 255, (n, 3, 5, 5)))
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)
    smooth[::5] = torch.from_numpy(rng.integers(0, 256, (len(smooth[::5]), 3, height, width), np.uint8))
    smooth[1::7] = smooth[1::7, :1]  # no chroma
    smooth[0, :, :4], smooth[0, :, 4:8] = 0, 255
    return smooth


# What is drawn


def official_boxes(n: int, height: int, width: int, scale, ratio) -> Tensor:
    image = torch.empty(1, height, width)
    torch.manual_seed(0)
    return torch.tensor([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(n)])


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(32, 32, (0.2, 1.0)), (224, 224, (0.4, 1.0)), (24, 40, (0.2, 1.0))],
)
def test_crop_boxes_are_distributed_as_torchvisions(height, width, scale):
    n = 12_000
    ours = random_crop_boxes(n, height, width, scale, RATIO, generator(), CPU).double()
    theirs = official_boxes(n, height, width, scale, RATIO).double()
    assert ours[:, :2].min() >= 0
    assert (ours[:, :2] + ours[:, 2:] <= torch.tensor([height, width])).all()

    def measures(boxes: Tensor) -> dict[str, Tensor]:
        top, left, h, w = boxes.unbind(1)
        return {
            "area": h * w,
            "log ratio": (w / h).log(),
            "height": h,
            "width": w,
            "top": top,
            "left": left,
            "top within its room": (top + 0.5) / (height - h + 1),
            "left within its room": (left + 0.5) / (width - w + 1),
        }

    known = measures(theirs)
    for name, values in measures(ours).items():
        assert stats.ks_2samp(values, known[name]).pvalue > LEVEL, name


def test_every_box_is_as_likely_as_torchvisions():
    """On a small image all boxes can be counted, corner and sides together, with many tries thrown away."""
    n, shape = 12_000, (6, 9)
    ours = random_crop_boxes(n, *shape, (0.2, 1.0), RATIO, generator(3), CPU)
    theirs = official_boxes(n, *shape, (0.2, 1.0), RATIO)
    kinds, index = torch.cat([ours, theirs]).unique(dim=0, return_inverse=True)
    counts = torch.stack([part.bincount(minlength=len(kinds)) for part in (index[:n], index[n:])])
    counts = counts[:, counts.sum(0) >= 20]  # so few that chi-square holds; the rest is counted with none
    assert counts.sum() > 1.9 * n
    assert stats.chi2_contingency(counts).pvalue > LEVEL


@pytest.mark.parametrize("shape", [(10, 60), (60, 10), (16, 16)])
def test_images_that_no_crop_fits_give_their_centre(shape):
    """Nearly the whole area of a long image is at no allowed ratio, more than the area of a square one at none."""
    scale = (0.9, 1.0) if shape[0] != shape[1] else (1.2, 1.3)
    ours = random_crop_boxes(200, *shape, scale, RATIO, generator(), CPU)
    theirs = official_boxes(20, *shape, scale, RATIO)
    assert len(theirs.unique(dim=0)) == 1
    assert (ours == theirs[0]).all()


def test_the_first_try_that_fits_is_taken_and_only_then_the_centre():
    """On 10 x 24 most tries fail and some images fall back: shares as torchvision's, in one table."""
    n, shape, scale = 6000, (10, 24), (0.45, 0.75)
    ours, theirs = random_crop_boxes(n, *shape, scale, RATIO, generator(), CPU), official_boxes(n, *shape, scale, RATIO)
    centre = torch.tensor([0, 5, 10, 13])
    table = [[int((boxes == centre).all(1).sum()), int((boxes != centre).any(1).sum())] for boxes in (ours, theirs)]
    assert min(map(min, table)) > 100
    assert stats.chi2_contingency(table).pvalue > LEVEL


def test_jitter_is_drawn_as_torchvisions():
    n = 12_000
    jitter = random_jitter(n, AMOUNTS, 0.8, generator(1), CPU)
    changed = jitter.hue != 0
    assert stats.binomtest(int(changed.sum()), n, 0.8).pvalue > LEVEL
    assert torch.equal(jitter.factors == 1, ~changed.view(-1, 1).expand(n, 3)), "all of an image's operations or none"
    torch.manual_seed(0)
    limits = [(0.6, 1.4)] * 3 + [(-0.1, 0.1)]
    theirs = [ColorJitter.get_params(*limits) for _ in range(4000)]
    drawn = torch.cat([jitter.factors, jitter.hue.view(-1, 1)], dim=1)[changed]
    for i, (low, high) in enumerate(limits):
        ours = drawn[:, i]
        assert low <= ours.min() < low + 0.001
        assert high - 0.001 < ours.max() <= high
        assert stats.ks_2samp(ours, [draw[1 + i] for draw in theirs]).pvalue > LEVEL
        for j in range(i):
            assert stats.pearsonr(ours, drawn[:, j]).pvalue > LEVEL
    assert jitter.order.sort(dim=1).values.eq(torch.arange(4)).all()
    places = torch.tensor([1000, 100, 10, 1])
    groups = (jitter.order, jitter.order[~changed])
    counts = [(orders * places).sum(1).unique(return_counts=True)[1] for orders in groups]
    assert [len(count) for count in counts] == [24, 24]
    assert all(stats.chisquare(count).pvalue > LEVEL for count in counts)


def test_a_factor_never_falls_below_zero():
    factors = random_jitter(2000, (1.5, 0.0, 0.4, 0.5), 1.0, generator(), CPU).factors
    assert factors[:, 0].min() >= 0
    assert factors[:, 0].max() > 2.4
    assert (factors[:, 1] == 1).all()


def test_flip_and_grayscale_probabilities_and_independence():
    n = 12_000
    draws = views().draw(n, 32, 32, generator(2), CPU)
    kinds = {"flip": (draws.mirrored, 0.5), "grey": (draws.grey, 0.2), "jitter": (draws.jitter.hue != 0, 0.8)}
    for name, (chosen, probability) in kinds.items():
        assert stats.binomtest(int(chosen.sum()), n, probability).pvalue > LEVEL, name
    chosen = torch.stack([chosen for chosen, _ in kinds.values()]).double().numpy()
    correlations = np.corrcoef(chosen)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < stats.norm.isf(LEVEL / 2) / n**0.5


# What is computed


def random_boxes(n: int, height: int, width: int) -> Tensor:
    rng = np.random.default_rng(1)
    h, w = rng.integers(1, height + 1, n), rng.integers(1, width + 1, n)
    boxes = np.stack([rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w], axis=1)
    boxes[0] = (0, 0, height, width)
    return torch.from_numpy(boxes)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((32, 32), (32, 32)), ((20, 28), (32, 32)), ((32, 32), (24, 24)), ((64, 48), (16, 20)), ((250, 230), (224, 224))],
)
def test_crop_and_resize_equal_torchvisions(shape, size):
    """Enlarging is plain bilinear; reducing widens the filter as torchvision's and Pillow's antialiasing does."""
    images = photographs(24, *shape) / 255
    boxes, mirrored = random_boxes(24, *shape), torch.arange(24) % 3 == 0
    ours = crop_and_resize(images, boxes, size, mirrored)
    for image, box, mirror, result in zip(images, boxes.tolist(), mirrored, ours, strict=True):
        known = official.resized_crop(image, *box, list(size), antialias=True)
        known = known.flip(-1) if mirror else known
        # float32 places a filter to 1e-5 of a pixel where coordinates reach 256.
        assert torch.allclose(result, known, rtol=0, atol=1e-5 if max(shape) < 100 else 3e-5)


def test_enlarging_equals_grid_sampling_with_the_border_continued():
    images, boxes, size = photographs(1) / 255, torch.tensor([[3, 5, 17, 21]]), (32, 32)
    top, left, h, w = boxes[0].tolist()
    window = images[:, :, top : top + h, left : left + w]
    grid = torch.nn.functional.affine_grid(torch.eye(2, 3)[None], [1, 3, *size], align_corners=False)
    sampled = torch.nn.functional.grid_sample(window, grid, padding_mode="border", align_corners=False)
    assert torch.allclose(crop_and_resize(images, boxes, size), sampled, rtol=0, atol=1e-5)


def test_the_whole_image_passes_exactly():
    images, whole = photographs(6) / 255, torch.tensor([[0, 0, 32, 32]]).expand(6, 4)
    assert torch.equal(crop_and_resize(images, whole, (32, 32)), images)
    assert torch.equal(crop_and_resize(images, whole, (32, 32), torch.ones(6, dtype=torch.bool)), images.flip(-1))


@pytest.mark.parametrize("size", [32, 12])
def test_crops_differ_from_pillows_by_its_rounding_alone(size):
    """Pillow rounds to whole levels after each of its two passes: at most one level in all."""
    images, boxes = photographs(24), random_boxes(24, 32, 32)
    ours = crop_and_resize(images / 255, boxes, (size, size)) * 255
    for image, box, result in zip(images, boxes.tolist(), ours, strict=True):
        known = official.resized_crop(official.to_pil_image(image), *box, [size, size])
        assert (result - official.pil_to_tensor(known)).abs().max() < 1.01


OPERATIONS = {
    BRIGHTNESS: official.adjust_brightness,
    CONTRAST: official.adjust_contrast,
    SATURATION: official.adjust_saturation,
    HUE: official.adjust_hue,
}
NEWER = {
    BRIGHTNESS: v2.functional.adjust_brightness,
    CONTRAST: v2.functional.adjust_contrast,
    SATURATION: v2.functional.adjust_saturation,
    HUE: v2.functional.adjust_hue,
}


def one_operation(n: int, kind: int, amount: float) -> Jitter:
    """A jitter that does one thing to every image, at another place of the order for each."""
    factors, hue = torch.ones(n, 3), torch.zeros(n)
    if kind == HUE:
        hue[:] = amount
    else:
        factors[:, kind] = amount
    orders = torch.tensor(list(permutations(range(4))))
    return Jitter(factors, hue, orders[torch.arange(n) % 24])


@pytest.mark.parametrize("functions", [OPERATIONS, NEWER], ids=["functional", "v2"])
@pytest.mark.parametrize(
    ("kind", "amount"),
    [(kind, amount) for kind in (BRIGHTNESS, CONTRAST, SATURATION) for amount in (0.0, 0.6, 0.93, 1.4)]
    + [(HUE, amount) for amount in (-0.5, -0.1, 0.033, 0.1, 0.5)],
)
def test_each_operation_equals_torchvisions(functions, kind, amount):
    images = photographs(48) / 255
    ours = apply_jitter(images.clone(), one_operation(48, kind, amount))
    assert torch.allclose(ours, functions[kind](images, amount), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "most", "mean"),
    [(BRIGHTNESS, 1.0, 0.6), (CONTRAST, 1.4, 0.6), (SATURATION, 1.4, 0.6), (HUE, 20.0, 2.5)],
)
def test_each_operation_is_near_pillows(kind, most, mean):
    """How far, in grey levels, the official pipeline is from exact: Pillow rounds to whole levels after each operation.

    For the hue it also rounds down to 255 steps of the circle (6 levels at full chroma), once for the image and once
    for the turn, and wraps at 256 of them.
    """
    images = photographs(24)
    for amount in (-0.1, 0.07) if kind == HUE else (0.6, 1.4):
        ours = apply_jitter(images / 255, one_operation(24, kind, amount)) * 255
        known = [official.pil_to_tensor(OPERATIONS[kind](official.to_pil_image(image), amount)) for image in images]
        away = (ours - torch.stack(known)).abs()
        assert away.max() <= most
        assert away.mean() <= mean


def official_jitter(image: Tensor, jitter: Jitter, i: int) -> Tensor:
    """One image through torchvision's operations one after the other."""
    for kind in jitter.order[i].tolist():
        amount = float(jitter.hue[i]) if kind == HUE else float(jitter.factors[i, kind])
        image = OPERATIONS[kind](image, amount)
    return image


def test_all_orders_of_operations_equal_torchvisions():
    images = photographs(96) / 255
    jitter = random_jitter(96, (0.8, 0.8, 0.8, 0.4), 1.0, generator(), CPU)
    orders = torch.tensor(list(permutations(range(4)))).repeat(4, 1)
    jitter = Jitter(jitter.factors, jitter.hue, orders)
    ours = apply_jitter(images.clone(), jitter)
    for i, image in enumerate(images):
        assert torch.allclose(ours[i], official_jitter(image, jitter, i), rtol=0, atol=1e-5)
    backwards = apply_jitter(images.clone(), Jitter(jitter.factors, jitter.hue, orders.flip(1)))
    differ = (ours - backwards).abs().flatten(1).max(dim=1).values
    assert differ.median() > 0.01, "the order must matter, or this test shows nothing"


def test_images_without_jitter_and_grayscale_are_left_exactly():
    images = photographs(30) / 255
    jitter = random_jitter(30, AMOUNTS, 0.5, generator(), CPU)
    untouched = jitter.hue == 0
    assert 5 < untouched.sum() < 25
    assert torch.equal(apply_jitter(images.clone(), jitter)[untouched], images[untouched])
    chosen = torch.arange(30) % 2 == 0
    result = grayscale_(images.clone(), chosen)
    assert torch.equal(result[~chosen], images[~chosen])
    assert torch.allclose(result[chosen], official.rgb_to_grayscale(images[chosen], 3), rtol=0, atol=1e-6)


def official_view(image: Tensor, draws: Draws, i: int, size: tuple[int, int]) -> Tensor:
    """View i of a uint8 image (3, H, W) by torchvision, one operation after the other."""
    view = official.resized_crop(image / 255, *draws.boxes[i].tolist(), list(size), antialias=True)
    view = view.flip(-1) if draws.mirrored[i] else view
    if draws.jitter.hue[i] != 0:
        view = official_jitter(view, draws.jitter, i)
    view = official.rgb_to_grayscale(view, 3) if draws.grey[i] else view
    return official.normalize(view, MEAN, STD)


@pytest.mark.parametrize(("shape", "size"), [((32, 32), None), ((40, 24), 20)])
def test_views_are_torchvisions_with_the_same_draws(shape, size):
    """All first views come first; more views than one chunk holds; each as if it had been alone."""
    n, transform, wanted = 60, views(size=size), shape if size is None else (size, size)
    images = photographs(n, *shape)
    ours = transform.augmented(images, generator(5))
    draws = transform.draw(2 * n, *shape, generator(5), CPU)
    assert ours.shape == (2 * n, 3, *wanted)
    assert ours.dtype == torch.float32
    for i in range(2 * n):
        known = official_view(images[i % n], draws, i, wanted)
        assert torch.allclose(ours[i], known, rtol=0, atol=1e-5 / min(STD)), i


def test_whole_pipeline_is_distributed_as_torchvisions():
    """The published chain of torchvision's own classes on one image, against ours: means and spreads of the views."""
    n, image = 1500, photographs(4)[2]
    chain = v2.Compose(
        [
            v2.RandomResizedCrop(32, scale=(0.2, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*AMOUNTS)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.Normalize(MEAN, STD),
        ]
    )
    torch.manual_seed(0)
    theirs = torch.stack([chain(image / 255) for _ in range(n)])
    ours = views(views=n).augmented(image[None], generator())

    def measures(results: Tensor) -> Tensor:
        pixels = results[:, :, ::9, ::9].flatten(1)
        return torch.cat([results.mean((2, 3)), results.std((2, 3)), pixels], dim=1)

    pairs = zip(measures(ours).t(), measures(theirs).t(), strict=True)
    smallest = min(stats.ks_2samp(a, b).pvalue for a, b in pairs)
    assert smallest > LEVEL / 54, "54 measures, Bonferroni"


# The transform


def test_test_time_is_the_plain_normalisation():
    images, plain = photographs(5), Transform(MEAN, STD, flip=False, crop_padding=0)
    assert torch.equal(views()(images), plain(images))
    raw = torch.randn(2, 3, 8, 8)
    assert torch.equal(views()(raw, raw=True), raw)


def test_floats_are_taken_as_they_are_and_left_alone():
    images = photographs(5) / 255
    before = images.clone()
    ours = views().augmented(images, generator())
    assert torch.equal(images, before)
    assert torch.equal(ours, views().augmented(photographs(5), generator()))


def test_crop_and_flip_alone():
    """The cross-entropy baseline: one view, no colour changed."""
    transform = views(views=1, jitter_probability=0.0, grayscale_probability=0.0)
    images = torch.randint(0, 256, (50, 3, 1, 1), generator=generator()).to(torch.uint8).expand(-1, -1, 32, 32)
    assert torch.allclose(transform.augmented(images, generator()), transform(images), rtol=0, atol=1e-5)
    ramp = torch.arange(32).to(torch.uint8).mul(8).expand(200, 3, 32, 32)
    slopes = transform.augmented(ramp, generator()).diff(dim=3).mean((1, 2, 3))
    assert stats.binomtest(int((slopes < 0).sum()), 200, 0.5).pvalue > LEVEL
    nothing = {"flip": False, "jitter": (0, 0, 0, 0), "grayscale_probability": 0.0}
    whole = views(views=1, crop_scale=(1, 1), crop_ratio=(1, 1), **nothing)
    assert torch.equal(whole.augmented(ramp, generator()), whole(ramp))


def test_imagenet_options_compose_with_the_shipped_file():
    changed = ["transform=cider_views", "transform.size=224", "transform.crop_scale=[0.4,1]", "transform.views=1"]
    transform = compose_settings(changed).transform.build()
    assert (transform.size, transform.crop_scale, transform.views) == (224, (0.4, 1.0), 1)
    assert transform.augmented(photographs(2, 240, 256), generator()).shape == (2, 3, 224, 224)
    shipped = compose_settings(["transform=cider_views"]).transform
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in shipped.record().items()}
    assert values == {**PUBLISHED, "name": "cider_views"}


def test_batches_hold_first_views_then_second_and_labels_twice():
    n = 24
    images = torch.arange(n).to(torch.uint8).mul(10).view(n, 1, 1, 1).expand(n, 3, 8, 8)
    transform = views(jitter_probability=0.0, grayscale_probability=0.0)

    def batches(seed: int = 1) -> DeviceBatches:
        stream = Stream(images, torch.arange(n), None, EpochShuffle(n, 10, seed, "labelled"))
        return DeviceBatches({"labelled": stream}, transform, seed, CPU, channels_last=True)

    straight = [batches()(step)["labelled"] for step in range(4)]
    assert [len(batch.targets) for batch in straight] == [20, 20, 8, 20], "the last batch of an epoch is short"
    for batch in straight:
        first, second = batch.targets.chunk(2)
        assert torch.equal(first, second)
        pixels = batch.images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        assert torch.equal((pixels.mean((1, 2, 3)) * 25.5).round().long(), batch.targets)
    one = batches()
    for step in (3, 1, 1):
        assert torch.equal(one(step)["labelled"].images, straight[step].images), "a step is a function of its number"


def test_views_of_one_image_differ_and_the_generator_decides():
    images, transform = photographs(20), views()
    ours = transform.augmented(images, generator(1))
    assert torch.equal(ours, transform.augmented(images, generator(1)))
    other = transform.augmented(images, generator(2))
    for i in range(20):
        assert not torch.equal(ours[i], ours[20 + i])
        assert not torch.equal(ours[i], other[i])


class OnDeviceOnly(TorchDispatchMode):
    """Refuses every operation that takes values from or to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in [*args, *(kwargs or {}).values(), result]:
            if isinstance(value, Tensor):
                assert value.device.type == "meta", f"{func} touches a tensor of the host"
        return result


def test_nothing_waits_for_the_device():
    """On the meta device a value that Python needs (.item(), boolean indexing) is an error, as is a copy to it here."""
    transform, images = views(), torch.empty(16, 3, 32, 32, dtype=torch.uint8, device="meta")
    transform.augmented(images, None)  # the first call moves mean and std
    with OnDeviceOnly():
        assert transform.augmented(images, None).shape == (32, 3, 32, 32)
        with pytest.raises(AssertionError, match="touches"):
            torch.ones(1).to("meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_views_without_synchronising():
    images, transform, device = photographs(64).cuda(), views(), torch.device("cuda")
    on_device = torch.Generator(device).manual_seed(1)
    first = transform.augmented(images, on_device)
    draws = transform.draw(128, 32, 32, on_device.manual_seed(1), device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = transform.augmented(images, on_device.manual_seed(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, again)
    jitter = Jitter(draws.jitter.factors.cpu(), draws.jitter.hue.cpu(), draws.jitter.order.cpu())
    here = Draws(draws.boxes.cpu(), draws.mirrored.cpu(), jitter, draws.grey.cpu())
    on_cpu = ViewTransform.changed(photographs(64).repeat(2, 1, 1, 1), here, (32, 32))
    assert torch.allclose(again.cpu(), views()(on_cpu), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"views": 0}, "views=0"),
        ({"size": 0}, "size=0"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_scale": (0.5, 1.5)}, "must not exceed 1"),
        ({"crop_ratio": (1.0,)}, "crop_ratio"),
        ({"jitter": (0.4, 0.4, 0.4)}, "four values"),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "hue at most 0.5"),
        ({"jitter_probability": 1.2}, "jitter_probability=1.2"),
        ({"grayscale_probability": -0.1}, "grayscale_probability=-0.1"),
        ({"std": (0.0, 1.0, 1.0)}, "those of std above 0"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        views(**values)
