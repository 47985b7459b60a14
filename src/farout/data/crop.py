"""Random resized crops of a whole batch: every image its own box, one pair of batched matrix products."""

import math

import torch
from torch import Tensor

TRIES = 10


def random_crop_boxes(
    n: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Boxes (n, 4) int64 of top, left, height, width in pixels, distributed as torchvision's RandomResizedCrop's.

    A try draws a share of the image's area uniformly from `scale` and width over height log-uniformly from `ratio`; the
    sides are rounded, and a box that does not fit is thrown away. All ten tries of all images are drawn at once and the
    first that fits is taken, which is the same distribution as trying again until one fits. Images for which none fits
    get the centre of the image, cut to the nearest allowed ratio.
    """
    area, aspect = torch.empty(2, n, TRIES, device=device).unbind()
    area.uniform_(*scale, generator=generator).mul_(height * width)
    aspect.uniform_(math.log(ratio[0]), math.log(ratio[1]), generator=generator).exp_()
    sides = torch.stack([(area / aspect).sqrt_(), (area * aspect).sqrt_()], dim=2).round_()  # (n, tries, 2)
    room = torch.stack([height - sides[..., 0], width - sides[..., 1]], dim=2)
    fits = ((sides > 0) & (room >= 0)).all(dim=2)
    first = fits.to(torch.uint8).argmax(dim=1).view(n, 1, 1).expand(n, 1, 2)
    # A draw below 1 stays below room + 1 when multiplied by it in float32, so the corner never leaves the image.
    corner = torch.rand(n, 2, device=device, generator=generator).mul_(room.gather(1, first)[:, 0] + 1).floor_()
    boxes = torch.cat([corner, sides.gather(1, first)[:, 0]], dim=1)
    centre = torch.empty(n, 4, device=device)
    for column, value in enumerate(centre_box(height, width, ratio)):
        centre[:, column] = value
    return torch.where(fits.any(dim=1, keepdim=True), boxes, centre).long()


def centre_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """(top, left, height, width): the whole image where its ratio is allowed, else its centre at the nearest ratio."""
    low, high = ratio
    if width / height < low:
        box_height, box_width = round(width / low), width
    elif width / height > high:
        box_height, box_width = height, round(height * high)
    else:
        box_height, box_width = height, width
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def crop_and_resize(images: Tensor, boxes: Tensor, size: tuple[int, int], mirrored: Tensor | None = None) -> Tensor:
    """Cut each image to its box, resize it bilinearly to `size`, and mirror it where `mirrored` (n,) is true.

    Args:
        images: (n, C, H, W) floating point, left alone.
        boxes: (n, 4) of top, left, height, width, inside the images.
        size: height and width of the result.

    Returns:
        (n, C, *size). Where a box is larger than `size`, the triangle filter widens with the reduction, as Pillow's
        does (without its rounding to whole grey levels between the two passes).

    Bilinear resizing is linear along rows and along columns, so an image is two matrix products; at 32 x 32 they cost
    what a gather (grid_sample, which cannot widen its filter) does.
    """
    n, channels, height, width = images.shape
    top, left, box_height, box_width = boxes.to(images.dtype).unbind(dim=1)
    down = resize_weights(top, box_height, height, size[0])
    across = resize_weights(left, box_width, width, size[1], mirrored)
    rows = torch.bmm(images.reshape(n, channels * height, width), across.transpose(1, 2))
    return down.unsqueeze(1) @ rows.view(n, channels, height, size[1])


def resize_weights(start: Tensor, length: Tensor, side: int, size: int, mirrored: Tensor | None = None) -> Tensor:
    """Weights (n, size, side) by which `side` pixels make `size` ones out of the window [start, start + length).

    `start` and `length` are (n,) in pixels. Each row of weights is a triangle about the result pixel's centre, cut off
    at the window (so the outermost pixels continue) and normalised to sum 1.
    """
    start, length = start.view(-1, 1), length.view(-1, 1)
    place = torch.arange(size, device=start.device, dtype=start.dtype).add_(0.5).expand(len(start), size)
    if mirrored is not None:
        place = torch.where(mirrored.view(-1, 1), size - place, place)
    step = length / size  # source pixels a result pixel
    pixels = torch.arange(side, device=start.device, dtype=start.dtype).add_(0.5)
    distance = (start + place * step).unsqueeze(2) - pixels
    weights = distance.abs_().div_(step.clamp(min=1).unsqueeze(2)).neg_().add_(1).clamp_(min=0)
    weights.mul_(((pixels > start) & (pixels < start + length)).unsqueeze(1))
    return weights.div_(weights.sum(dim=2, keepdim=True))
