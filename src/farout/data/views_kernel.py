# mypy: allow-untyped-defs, allow-untyped-decorators
"""Random views in one Triton kernel: a program makes a view, from its image's bytes to the network's input.

`farout.data.views` does the same in many operations on whole batches, each of which a GPU reads from and writes to its
memory. Same draws, same formulas, same order; sums of a resize and of an image's mean add up differently.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from farout.data.colour import LUMA
from farout.data.draws import Draws

RED, GREEN, BLUE = (tl.constexpr(share) for share in LUMA)
CONTRAST, SATURATION, HUE = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
LARGEST = 64 * 64  # pixels of a view: all of it stays in a program's registers
# Products are rounded before they are added, as single operations have it. For the same reason quotients are tl.div_rn:
# "/" is only nearly right on a GPU.
EXACT = {"enable_fp_fusion": False}


@triton.jit
def _luma(red, green, blue):
    return red * RED + green * GREEN + blue * BLUE


@triton.jit
def _window(place, start, length, size):
    """Along one axis: where the filter's centre lies, its reach, and the first pixel that it may weigh."""
    step = length / size
    reach = tl.maximum(step, 1.0)
    centre = start + place * step
    return centre, reach, tl.floor(centre - reach + 0.5)


@triton.jit
def _weight(pixel, centre, reach, start, length):
    """A triangle about the centre, cut off at the window [start, start + length)."""
    middle = pixel + 0.5
    weight = tl.maximum(1.0 - tl.div_rn(tl.abs(centre - middle), reach), 0.0)
    return tl.where((middle > start) & (middle < start + length), weight, 0.0)


@triton.jit
def _turned(red, green, blue, turn):
    """Colours with their hue turned by so many sixths of the circle, see `shift_hue`."""
    high = tl.maximum(tl.maximum(red, green), blue)
    low = tl.minimum(tl.minimum(red, green), blue)
    chroma = high - low
    sixths = tl.where(
        high == red, green - blue, tl.where(high == green, (blue - red) + 2 * chroma, (red - green) + 4 * chroma)
    )
    hue = tl.div_rn(sixths, tl.maximum(chroma, 1e-30)) + turn
    hue = hue - 6 * tl.floor(hue / 6)
    ramp_red = tl.minimum(tl.maximum(2 - tl.abs(hue - 3), 0.0), 1.0)
    ramp_green = tl.minimum(tl.maximum(2 - tl.abs(hue - 2), 0.0), 1.0)
    ramp_blue = tl.minimum(tl.maximum(2 - tl.abs(hue - 4), 0.0), 1.0)
    return high - chroma * ramp_red, low + chroma * ramp_green, low + chroma * ramp_blue


@triton.jit
def _blended(value, factor, reference):
    return tl.minimum(tl.maximum(value * factor + reference * (1 - factor), 0.0), 1.0)


@triton.jit
def _resized(
    image, box, mirrored, row, column, inside, height, width, out_height, out_width,
    TAPS_DOWN: tl.constexpr, TAPS_ACROSS: tl.constexpr,
):  # fmt: skip
    """The box of an image, mirrored or not, at the view's size: its three channels."""
    top, left = tl.load(box).to(tl.float32), tl.load(box + 1).to(tl.float32)
    tall, wide = tl.load(box + 2).to(tl.float32), tl.load(box + 3).to(tl.float32)
    place = tl.where(mirrored, out_width - (column + 0.5), column + 0.5)
    middle_y, reach_y, first_y = _window(row + 0.5, top, tall, out_height)
    middle_x, reach_x, first_x = _window(place, left, wide, out_width)
    red, green, blue, whole = row * 0.0, row * 0.0, row * 0.0, row * 0.0
    for down in tl.static_range(TAPS_DOWN):
        weight_y = _weight(first_y + down, middle_y, reach_y, top, tall)
        for across in tl.static_range(TAPS_ACROSS):
            weight = weight_y * _weight(first_x + across, middle_x, reach_x, left, wide)
            at = image + (first_y + down).to(tl.int32) * width + (first_x + across).to(tl.int32)
            some_red, some_green, some_blue = _colours(at, height * width, inside & (weight > 0))
            red, green, blue = red + weight * some_red, green + weight * some_green, blue + weight * some_blue
            whole += weight
    whole = tl.where(inside, whole, 1.0)
    return tl.div_rn(red, whole), tl.div_rn(green, whole), tl.div_rn(blue, whole)


@triton.jit
def _colours(at, plane, inside):
    """Red, green and blue at these places, planes of an image being so far apart."""
    red = tl.load(at, mask=inside, other=0).to(tl.float32)
    green = tl.load(at + plane, mask=inside, other=0).to(tl.float32)
    return red, green, tl.load(at + 2 * plane, mask=inside, other=0).to(tl.float32)


@triton.jit
def _changed(red, green, blue, kind, factor, inside, pixels):
    """Brightness, contrast or saturation changed by a factor."""
    reference = red * 0.0
    if kind == SATURATION:
        reference = _luma(red, green, blue)
    if kind == CONTRAST:
        reference += tl.sum(tl.where(inside, _luma(red, green, blue), 0.0), axis=0) / pixels
    return _blended(red, factor, reference), _blended(green, factor, reference), _blended(blue, factor, reference)


@triton.jit
def _normalised(values, statistics):
    """Less the mean of a channel, by its standard deviation three values further on."""
    return tl.div_rn(values - tl.load(statistics), tl.load(statistics + 3))


@triton.jit
def _views(
    images, boxes, mirrored, factors, turns, order, grey, statistics, out,
    sources, height, width, out_height, out_width,
    TAPS_DOWN: tl.constexpr, TAPS_ACROSS: tl.constexpr, CROPS: tl.constexpr, FLIPS: tl.constexpr,
    JITTERS: tl.constexpr, GREYS: tl.constexpr, SCALE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    view = tl.program_id(0)
    image = images + (view % sources).to(tl.int64) * 3 * height * width
    pixel = tl.arange(0, BLOCK)
    area = out_height * out_width
    inside = pixel < area
    row, column = pixel // out_width, pixel % out_width
    flipped = tl.load(mirrored + view) != 0 if FLIPS else False

    if CROPS:
        red, green, blue = _resized(
            image, boxes + view * 4, flipped, row, column, inside, height, width, out_height, out_width,
            TAPS_DOWN, TAPS_ACROSS,
        )  # fmt: skip
    else:
        column = tl.where(flipped, out_width - 1 - column, column)
        red, green, blue = _colours(image + row * width + column, area, inside)
    red, green, blue = tl.div_rn(red, SCALE), tl.div_rn(green, SCALE), tl.div_rn(blue, SCALE)
    if JITTERS:
        for turn in range(4):
            kind = tl.load(order + view * 4 + turn)
            if kind == HUE:
                hue = tl.load(turns + view)
                if hue != 0:  # no turn: exactly as it was
                    red, green, blue = _turned(red, green, blue, hue * 6)
            else:
                factor = tl.load(factors + view * 3 + kind)
                red, green, blue = _changed(red, green, blue, kind, factor, inside, area)
    if GREYS:  # noqa: SIM102 - decided when the kernel is compiled, the other when it runs
        if tl.load(grey + view) != 0:
            red, green, blue = _changed(red, green, blue, SATURATION, 0.0, inside, area)

    to = out + view.to(tl.int64) * 3 * area + pixel
    tl.store(to, _normalised(red, statistics), mask=inside)
    tl.store(to + area, _normalised(green, statistics + 1), mask=inside)
    tl.store(to + 2 * area, _normalised(blue, statistics + 2), mask=inside)


def fits(images: Tensor, size: tuple[int, int]) -> bool:
    """Whether the kernel makes views of this size from images (B, C, H, W): in colour, and no larger than `LARGEST`."""
    return images.shape[1] == 3 and size[0] * size[1] <= LARGEST and images.dtype in (torch.uint8, torch.float32)


def make_views(images: Tensor, n: int, draws: Draws, size: tuple[int, int], statistics: Tensor) -> Tensor:
    """The normalised views (n, 3, *size) float32 that `draws` say of images (B, 3, H, W), uint8 or float32 over [0, 1].

    n is a multiple of B: all first views, then all second ones. Without boxes the views have the images' own size.
    `statistics` (2, 3) are the mean and the standard deviation of each channel.
    """
    count, _, height, width = images.shape
    images = images.contiguous()
    out = torch.empty(n, 3, *size, device=images.device)
    jitter, taps = draws.jitter, [_taps(height, size[0]), _taps(width, size[1])]
    parts = (
        draws.boxes,
        None if draws.mirrored is None else draws.mirrored.view(torch.uint8),
        *((None, None, None) if jitter is None else (jitter.factors, jitter.hue, jitter.order)),
        None if draws.grey is None else draws.grey.view(torch.uint8),
    )
    drawn = [None if part is None else part.contiguous() for part in parts]
    does = [draws.boxes is not None, draws.mirrored is not None, jitter is not None, draws.grey is not None]
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    block = triton.next_power_of_2(size[0] * size[1])
    warps = max(1, min(8, block // 256))
    sizes = (count, height, width, *size)
    _views[(n,)](images, *drawn, statistics, out, *sizes, *taps, *does, scale, block, num_warps=warps, **EXACT)
    return out


def _taps(side: int, size: int) -> int:
    """The most pixels that a result pixel draws on along an axis: as many as fit into its filter, and one."""
    return math.ceil(2 * max(side / size, 1)) + 1
