"""From encoded images (PNG, JPEG ...) to one tensor of pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from unmask.data.dataset import DataError

__all__ = ["PEEK", "count_channels", "decode"]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # others, such as EPS, would start outside programs
_GREY = {"1", "L"}
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # the rest has more than 8 bits
_MOST_PIXELS = 64_000_000
PEEK = 256  # images that settle whether a set is grey


def count_channels(encoded: Sequence[bytes], where: str) -> int:
    """1 if all images are grey, else 3; settled by the first 256, so that it does not depend on n.

    Raises :class:`DataError` if an image that cannot be read comes first, or the first one in colour
    comes after the first 256.
    """
    colour = next((row for row, raw in enumerate(encoded) if _open(raw, row, where).mode not in _GREY), None)
    if colour is not None and colour >= PEEK:
        raise DataError(f"{where}: row {colour} is in colour but all before are grey", "convert the images to RGB")
    return 1 if colour is None else 3


def decode(encoded: Sequence[bytes], *, channels: int, size: int | None, where: str) -> tuple[Tensor, bool]:
    """N encoded images as uint8 (N, channels, H, W), and whether any of them was a JPEG.

    ``channels`` is 1 (grey) or 3 (RGB). ``size`` resizes the short side to ``size * 256 / 224``
    (bilinear, antialiased) and cuts out the central square of ``size``; None leaves the images as they
    are, which must then have one shape.

    Raises :class:`DataError`, which names ``where`` and the row, for an image that cannot be decoded,
    is larger than 64 megapixels, has more than 8 bits a channel or differs in shape.

    >>> buffer = io.BytesIO()
    >>> Image.new("L", (3, 2), 7).save(buffer, "PNG")
    >>> images, jpeg = decode([buffer.getvalue()], channels=1, size=None, where="example")
    >>> images.tolist(), jpeg
    ([[[[7, 7, 7], [7, 7, 7]]]], False)
    """
    pixels = np.empty((0, 0, 0, channels), np.uint8)
    jpeg = False
    for row, raw in enumerate(encoded):
        image = _open(raw, row, where)
        jpeg |= image.format == "JPEG"
        one = _pixels(image, channels, size, row, where)
        if row == 0:
            pixels = np.empty((len(encoded), *one.shape), np.uint8)
        if one.shape != pixels.shape[1:]:
            shapes = f"row {row} is {_extent(one)} but row 0 is {_extent(pixels[0])}"
            raise DataError(f"{where}: {shapes}", "give size= to resize and crop all images to one shape")
        pixels[row] = one
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), jpeg


def _open(raw: bytes, row: int, where: str) -> Image.Image:
    """The image with its header read and its pixels not yet decoded."""
    try:
        image = Image.open(io.BytesIO(raw), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(row, where) from None
    except Exception as error:  # Pillow's readers raise many kinds
        raise _unreadable(error, row, where) from error
    if image.width * image.height > _MOST_PIXELS:
        raise _too_large(row, where)
    if image.mode not in _MODES:
        raise DataError(f"{where}: row {row} has pixels of mode {image.mode}", "save it with 8 bits a channel")
    return image


def _pixels(image: Image.Image, channels: int, size: int | None, row: int, where: str) -> npt.NDArray[np.uint8]:
    """(H, W, C) uint8."""
    mode = "L" if channels == 1 else "RGB"
    try:
        image = image if image.mode == mode else image.convert(mode)
        image.load()
    except Exception as error:
        raise _unreadable(error, row, where) from error
    if size is not None:
        short = round(size * 256 / 224)
        width, height = (short * side // min(image.size) for side in image.size)
        if width * height > _MOST_PIXELS:  # a long thin image grows when its short side does
            raise _too_large(row, where)
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image).reshape(image.height, image.width, channels)


def _extent(pixels: npt.NDArray[np.uint8]) -> str:
    height, width, _ = pixels.shape
    return f"{width}x{height}"


def _unreadable(error: Exception, row: int, where: str) -> DataError:
    reason = "not a PNG, JPEG, WebP or BMP" if isinstance(error, UnidentifiedImageError) else error
    return DataError(f"{where}: the image of row {row} cannot be decoded ({reason})", "fetch or write the file again")


def _too_large(row: int, where: str) -> DataError:
    return DataError(f"{where}: the image of row {row} exceeds {_MOST_PIXELS // 10**6} megapixels", "make it smaller")
