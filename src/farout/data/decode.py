"""Decoding image files, in one place for stores, packs, folders that are read where they lie, and detectors.

Bytes of a file, or a PIL image -> what a viewer shows, as RGB: upright (EXIF), what is transparent on white, 16-bit
grey as its upper 8 bits, of an animation the first frame. Same file, same pixels, whoever asks.
"""

from __future__ import annotations

import functools
import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from farout.errors import FaroutError, printable

READER = 2  # raise it when the same file gives other pixels: what was computed from them is not reused
FILE_LIMIT = 2**28  # bytes of one image file; what is larger is no photograph, and would fill the memory
PIXEL_LIMIT = 2**27  # of a picture after its shorter side was resized: a long, thin one would grow without bound

# Pillow also opens vector graphics (by other programs), films, measurements and stubs: these are no pictures here.
_NO_PICTURES = {"BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "IPTC", "MCIDAS", "MPEG", "SPIDER", "WMF", "XVTHUMB"}
# Formats whose first bytes are their own: a file of these is known whatever its name. Others need their suffix.
_BY_CONTENT = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "JPEG2000", "AVIF", "PSD", "QOI")
_FIRST_BYTES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|P[1-6]\s[\s#\d]"
    rb"|II\*\0|MM\0\*|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51|....ftypavi[fs]|8BPS\0\x01|qoif",
    re.DOTALL,
)
HEAD = 32  # bytes that tell
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@functools.cache
def suffixes() -> dict[str, str]:
    """Suffix -> format of all pictures that Pillow opens in this installation."""
    known = {
        suffix: kind
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NO_PICTURES
    }
    return {**known, ".mpo": "JPEG"} if "JPEG" in Image.OPEN else known


def suffix_of(name: str) -> str:
    """In lower case; empty also for `IMG.0001`, whose number says nothing of its kind."""
    suffix = Path(name).suffix.lower()
    return "" if suffix[1:].isdecimal() else suffix


def needs_head(name: str) -> bool:
    """Whether the name alone does not tell if a file is a picture."""
    return suffix_of(name) == ""


def is_picture(name: str, head: bytes = b"") -> bool:
    """By suffix; without one by the first HEAD bytes."""
    suffix = suffix_of(name)
    return suffix in suffixes() if suffix else _FIRST_BYTES.match(head) is not None


@functools.cache
def _formats(suffix: str) -> tuple[str, ...]:
    own = suffixes().get(suffix)
    return _BY_CONTENT if own is None or own in _BY_CONTENT else (*_BY_CONTENT, own)


@contextmanager
def naming(name: object) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line about the picture `name`.

    A damaged file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error, IndexError, MemoryError.
    """
    try:
        yield
    except Exception as error:
        where = f"{printable(name)} cannot be read ({_reason(error)})"
        raise FaroutError(f"{where}: leave it out, or save it again as PNG or JPEG") from None


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines() or [type(error).__name__]
    return "no image, or of an unknown kind" if "cannot identify" in lines[0] else printable(lines[0])


def read_file(path: Path) -> bytes:
    """All of a file of at most FILE_LIMIT bytes. Raises FaroutError, OSError."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > FILE_LIMIT:
            raise FaroutError(f"more than {FILE_LIMIT >> 20} MiB")
        return file.read(FILE_LIMIT)


def decoded(content: bytes, name: str) -> Image.Image:
    """The picture that a viewer shows, as RGB; `name` only tells the kind, by its suffix. Raises what Pillow raises."""
    _accept_large_pictures()
    with Image.open(io.BytesIO(content), formats=_formats(suffix_of(name))) as image:
        return shown(image)


_LARGE = ("ignore", None, Image.DecompressionBombWarning, None, 0)


def _accept_large_pictures() -> None:
    """Pillow refuses pictures over twice its limit; those between are read without a warning for each."""
    if _LARGE not in warnings.filters:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def shown(image: Image.Image) -> Image.Image:
    """An image as RGB, as a viewer shows it; `image` stays as it is.

    Raises FaroutError for pixels that are floats or whole numbers of an unknown range, and what Pillow raises.
    """
    image = _upright(image)
    if image.mode.startswith("I"):
        return _from_levels(image)
    if image.mode.startswith("F"):
        raise FaroutError("floating-point pixels of an unknown range")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        seen = Image.new("RGBA", image.size, "white")
        seen.alpha_composite((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
        return seen.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """As the camera was held: PIL's `exif_transpose`, but damaged EXIF data turn nothing."""
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # see `naming`
        turn = None
    if turn is None:
        return image
    upright = image.transpose(turn)
    for key in ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"):
        upright.info.pop(key, None)  # so that nobody turns it again
    return upright


def _from_levels(image: Image.Image) -> Image.Image:
    """Grey of 16 bits: the upper 8; whole numbers that need no more than 8 bits are those."""
    levels = np.asarray(image).astype(np.int64)
    if levels.min(initial=0) < 0 or levels.max(initial=0) > 65535:
        raise FaroutError("whole numbers of an unknown range as pixels")
    deep = image.mode != "I" or image.format == "PPM" or levels.max(initial=0) > 255
    grey = levels >> 8 if deep else levels
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[levels == transparent] = 255
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


@dataclass(frozen=True)
class ResizeCrop:
    """PIL resize (of the shorter side, or to [height, width]), then centre crop; None: neither.

    The papers' transforms resize bilinearly; `filter` names another of torchvision's interpolation modes.
    """

    resize: int | list[int] | None = None
    crop: int | None = None
    filter: str = "bilinear"

    def __str__(self) -> str:
        """What stands in the hashes of images that were read before: never to change, whatever the class is called."""
        return f"Handling(resize={self.resize!r}, crop={self.crop!r}, filter={self.filter!r})"

    def __call__(self, image: Image.Image) -> np.ndarray:
        """What a viewer shows of any image, resized and cropped, as uint8 (3, H, W)."""
        return self.fit(shown(image))

    def fit(self, image: Image.Image) -> np.ndarray:
        """The same for an image that is RGB and upright. Raises FaroutError for one too thin or too small."""
        from torchvision.transforms import functional as vision  # seconds, for images that are decoded alone

        width, height = image.size
        if min(width, height) < 1:
            raise FaroutError("it has no pixels")
        if self.resize is not None:
            side = self.resize if isinstance(self.resize, int) else max(self.resize)
            if side * side * max(width, height) / min(width, height) > PIXEL_LIMIT and isinstance(self.resize, int):
                raise FaroutError(f"{width} x {height} pixels: too long and thin to be resized")
            image = vision.resize(image, self.resize, vision.InterpolationMode(self.filter))
        if self.crop is not None:
            if self.crop > min(image.size):  # torchvision would fill up with black
                width, height = image.size
                raise FaroutError(f"{width} x {height} pixels have no part of {self.crop} x {self.crop}: add a resize")
            image = vision.center_crop(image, [self.crop])
        return np.asarray(image).transpose(2, 0, 1)
