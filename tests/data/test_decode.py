from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from unmask.data import DataError
from unmask.data.decode import PEEK, count_channels, decode

Encode = Callable[..., bytes]


def saved(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_png_pixels_come_back_in_channel_height_width_order(encode: Encode) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (2, 4, 5, 3))
    images, jpeg = decode([encode(one) for one in pixels], channels=3, size=None, where="x")
    assert not jpeg
    assert images.is_contiguous()
    assert images.tolist() == pixels.transpose(0, 3, 1, 2).tolist()


def test_grey_is_repeated_in_rgb_and_black_and_white_becomes_0_and_255(encode: Encode) -> None:
    images, _ = decode([encode(np.full((1, 1), 9))], channels=3, size=None, where="x")
    assert images.flatten().tolist() == [9, 9, 9]
    bits = saved(Image.fromarray(np.array([[True, False]])))
    assert decode([bits], channels=1, size=None, where="x")[0].tolist() == [[[[255, 0]]]]


def test_one_jpeg_is_enough_to_say_so(encode: Encode) -> None:
    flat = np.full((8, 8), 128)
    images, jpeg = decode([encode(flat), encode(flat, "JPEG")], channels=1, size=None, where="x")
    assert jpeg
    assert (images.int() - 128).abs().max() <= 1


def test_grey_needs_every_image_to_be_grey(encode: Encode) -> None:
    grey, colour = encode(np.zeros((2, 2))), encode(np.zeros((2, 2, 3)))
    assert count_channels([grey] * (PEEK + 9), "x") == 1
    assert count_channels([grey] * (PEEK - 1) + [colour], "x") == 3
    with pytest.raises(
        DataError, match=r"^x: row 256 is in colour but all before are grey: convert the images to RGB$"
    ):
        count_channels([grey] * PEEK + [colour], "x")


def test_size_takes_the_centre_of_the_resized_image(encode: Encode) -> None:
    """7 of 8 of the short side, from the middle: a square drawn there fills the crop, its frame is cut away."""
    pixels = np.zeros((64, 128))
    pixels[4:60, 36:92] = 200
    images, _ = decode([encode(pixels)], channels=1, size=56, where="x")
    assert images.shape == (1, 1, 56, 56)
    assert (images == 200).all()


def test_size_makes_one_shape_of_many(encode: Encode) -> None:
    many = [encode(np.full((40, 30), 50)), encode(np.full((30, 90), 70)), encode(np.full((10, 10), 90))]
    images, _ = decode(many, channels=1, size=28, where="x")
    assert images.shape == (3, 1, 28, 28)
    assert images.float().mean((1, 2, 3)).tolist() == [50, 70, 90]


def test_bilinear_resize_of_a_ramp_stays_a_ramp(encode: Encode) -> None:
    ramp = np.tile(np.arange(0, 256, 2), (128, 1))
    images, _ = decode([encode(ramp)], channels=1, size=56, where="x")
    inside = images[0, 0].float()
    assert (inside[0, 1:] - inside[0, :-1] == 4).all()
    assert inside.mean() == pytest.approx(127, abs=0.6)


def test_images_of_two_shapes_need_a_size(encode: Encode) -> None:
    two = [encode(np.zeros((2, 3))), encode(np.zeros((3, 2)))]
    wanted = r"^x: row 1 is 2x3 but row 0 is 3x2: give size= to resize and crop all images to one shape$"
    with pytest.raises(DataError, match=wanted):
        decode(two, channels=1, size=None, where="x")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no image",
        b"\x89PNG\r\n\x1a\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
        saved(Image.new("L", (4, 4)), "GIF"),  # a form that is not asked for
        bomb(4, 4),
    ],
)
def test_bytes_that_are_no_image_are_named_by_row(encode: Encode, raw: bytes) -> None:
    with pytest.raises(DataError) as caught:
        decode([encode(np.zeros((4, 4))), raw], channels=1, size=None, where="file")
    message = str(caught.value)
    assert message.startswith("file: the image of row 1 cannot be decoded (")
    assert message.endswith("): fetch or write the file again")
    assert "\n" not in message


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_half_an_image_is_refused(encode: Encode, form: str) -> None:
    whole = encode(np.random.RandomState(0).randint(0, 256, (32, 32)), form)
    with pytest.raises(DataError, match=r"^x: the image of row 0 cannot be decoded .*: fetch or write the file again$"):
        decode([whole[: len(whole) // 2]], channels=1, size=None, where="x")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (10_000, 10_000), (60_000, 60_000)])
def test_decompression_bombs_are_refused_unread(width: int, height: int) -> None:
    with pytest.raises(DataError, match=r"^x: the image of row 0 exceeds 64 megapixels: make it smaller$"):
        decode([bomb(width, height)], channels=1, size=None, where="x")


def test_a_long_thin_image_must_not_grow_into_a_bomb(encode: Encode) -> None:
    with pytest.raises(DataError, match=r"^x: the image of row 0 exceeds 64 megapixels: make it smaller$"):
        decode([encode(np.zeros((1, 5000)))], channels=1, size=224, where="x")


def test_sixteen_bit_pixels_are_refused_rather_than_cut() -> None:
    deep = saved(Image.fromarray(np.full((2, 2), 40_000, np.uint16)))
    with pytest.raises(DataError, match=r"^x: row 0 has pixels of mode I;16: save it with 8 bits a channel$"):
        decode([deep], channels=1, size=None, where="x")
