"""From encoded images (PNG, JPEG ...) to one tensor of pixels."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from unmask.data.dataset import DataError

__all__ = ["PEEK", "Decoded", "count_channels", "decode", "rows_of"]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # others, such as EPS, would start outside programs
_JPEG = ("JPEG", "MPO")  # the latter has previews behind the photograph
_GREY = {"1", "L"}
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # the rest has more than 8 bits
_MOST_PIXELS = 64_000_000
PEEK = 256  # images that settle whether a set is grey


class Decoded(NamedTuple):
    """Images as pixels, and what a reader of figures on them has to know."""

    images: Tensor  # (N, C, H, W) uint8
    jpeg: bool  # whether any of them was a JPEG
    remarks: tuple[str, ...]  # what was changed, such as "2 grey images as RGB"


def rows_of(where: str) -> Callable[[int], str]:
    """What errors call the images of a file that has one in each row.

    >>> rows_of("test.parquet")(3)
    'test.parquet: the image of row 3'
    """
    return lambda row: f"{where}: the image of row {row}"


def count_channels(encoded: Sequence[bytes], called: Callable[[int], str]) -> int:
    """1 if all images are grey, else 3; settled by the first 256, so that it does not depend on n.

    Raises :class:`DataError` if an image that cannot be read comes first, or the first one in colour
    comes after the first 256.
    """
    colour = next((row for row, raw in enumerate(encoded) if _open(raw, called(row)).mode not in _GREY), None)
    if colour is not None and colour >= PEEK:
        raise DataError(f"{called(colour)} is in colour but all before are grey", "convert the images to RGB")
    return 1 if colour is None else 3


def decode(encoded: Sequence[bytes], *, channels: int, size: int | None, called: Callable[[int], str]) -> Decoded:
    """N encoded images as uint8 (N, channels, H, W).

    ``channels`` is 1 (grey) or 3 (RGB). ``size`` resizes the short side to ``size * 256 / 224``
    (bilinear, antialiased) and cuts out the central square of ``size``; None leaves the images as they
    are, which must then have one shape. As torchvision does, palettes and CMYK become RGB, an alpha channel is
    dropped, and an orientation in the EXIF data is not applied; the remarks say in how many images.

    Raises :class:`DataError`, which calls the image ``called(row)``, for one that cannot be decoded, is larger than 64
    megapixels, has more than 8 bits a channel, is an animation or differs in shape.

    >>> buffer = io.BytesIO()
    >>> Image.new("L", (3, 2), 7).save(buffer, "PNG")
    >>> images, jpeg, remarks = decode([buffer.getvalue()], channels=3, size=None, called=rows_of("example"))
    >>> images[:, 0].tolist(), jpeg, remarks
    ([[[7, 7, 7], [7, 7, 7]]], False, ('1 grey image as RGB',))
    """
    pixels = np.empty((0, 0, 0, channels), np.uint8)
    jpeg, changes = False, Counter[str]()
    for row, raw in enumerate(encoded):
        image = _open(raw, called(row))
        jpeg |= image.format in _JPEG
        changes.update(_changes(image, channels))
        one = _pixels(image, channels, size, called(row))
        if row == 0:
            pixels = np.empty((len(encoded), *one.shape), np.uint8)
        if one.shape != pixels.shape[1:]:
            shapes = f"{called(row)} is {_extent(one)} but {called(0)} is {_extent(pixels[0])}"
            raise DataError(shapes, "give --size 224, for example, which resizes and crops all images to one shape")
        pixels[row] = one
    remarks = [kind.format(count, "s" * (count > 1)) for kind, count in sorted(changes.items())]
    if size is not None:
        remarks.append(f"resized bilinearly to a short side of {_short(size)}, cropped to the central {size} x {size}")
    return Decoded(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), jpeg, tuple(remarks))


def _open(raw: bytes, what: str) -> Image.Image:
    """The image with its header read and its pixels not yet decoded."""
    try:
        image = Image.open(io.BytesIO(raw), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(what) from None
    except Exception as error:  # Pillow's readers raise many kinds
        raise _unreadable(error, what) from error
    if image.width * image.height > _MOST_PIXELS:
        raise _too_large(what)
    if image.mode not in _MODES or _deep(image):
        mode = f"pixels of mode {image.mode}" if image.mode not in _MODES else "16 bits a channel"
        raise DataError(f"{what} has {mode}", "save it with 8 bits a channel")
    if image.format not in _JPEG and (frames := getattr(image, "n_frames", 1)) > 1:  # a JPEG's others are previews
        raise DataError(f"{what} is an animation of {frames} frames", "save one of them as an image")
    return image


def _deep(image: Image.Image) -> bool:
    """Whether Pillow would cut 16 bits a channel to 8 without a word."""
    modes = (tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in getattr(image, "tile", ()) if tile[3])
    return any(str(mode).endswith(";16B") for mode in modes)


def _changes(image: Image.Image, channels: int) -> list[str]:
    """What decoding changes of an image, in words with a place for the count and for the ending of the plural."""
    grey = ["{} grey image{} as RGB"] if channels == 3 and image.mode in {*_GREY, "LA"} else []
    alpha = ["alpha of {} image{} dropped"] if image.has_transparency_data else []
    cmyk = ["{} CMYK image{} as RGB"] if image.mode == "CMYK" else []
    turned = ["EXIF orientation of {} image{} not applied"] if _orientation(image) != 1 else []
    return [*grey, *alpha, *cmyk, *turned]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1)) or 1
    except Exception:  # damaged EXIF data concern no pixel
        return 1


def _short(size: int) -> int:
    """The short side of an image of which the central square of ``size`` is taken."""
    return round(size * 256 / 224)


def _pixels(image: Image.Image, channels: int, size: int | None, what: str) -> npt.NDArray[np.uint8]:
    """(H, W, C) uint8."""
    mode = "L" if channels == 1 else "RGB"
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's on transparency, which is dropped
            image = image if image.mode == mode else image.convert(mode)
        image.load()
    except Exception as error:
        raise _unreadable(error, what) from error
    if size is not None:
        short = _short(size)
        width, height = (short * side // min(image.size) for side in image.size)
        if width * height > _MOST_PIXELS:  # a long thin image grows when its short side does
            raise _too_large(what)
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image).reshape(image.height, image.width, channels)


def _extent(pixels: npt.NDArray[np.uint8]) -> str:
    height, width, _ = pixels.shape
    return f"{width}x{height}"


def _unreadable(error: Exception, what: str) -> DataError:
    reason = "not a PNG, JPEG, WebP or BMP" if isinstance(error, UnidentifiedImageError) else error
    return DataError(f"{what} cannot be decoded ({reason})", "fetch or write the file again")


def _too_large(what: str) -> DataError:
    return DataError(f"{what} exceeds {_MOST_PIXELS // 10**6} megapixels", "make it smaller")
