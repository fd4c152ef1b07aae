from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from unmask.data import DataError
from unmask.data.decode import PEEK, count_channels, decode, rows_of

Encode = Callable[..., bytes]
X = rows_of("x")


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
    images, jpeg, _ = decode([encode(one) for one in pixels], channels=3, size=None, called=X)
    assert not jpeg
    assert images.is_contiguous()
    assert images.tolist() == pixels.transpose(0, 3, 1, 2).tolist()


def test_grey_is_repeated_in_rgb_and_black_and_white_becomes_0_and_255(encode: Encode) -> None:
    images, *_ = decode([encode(np.full((1, 1), 9))], channels=3, size=None, called=X)
    assert images.flatten().tolist() == [9, 9, 9]
    bits = saved(Image.fromarray(np.array([[True, False]])))
    assert decode([bits], channels=1, size=None, called=X)[0].tolist() == [[[[255, 0]]]]


def test_one_jpeg_is_enough_to_say_so(encode: Encode) -> None:
    flat = np.full((8, 8), 128)
    images, jpeg, _ = decode([encode(flat), encode(flat, "JPEG")], channels=1, size=None, called=X)
    assert jpeg
    assert (images.int() - 128).abs().max() <= 1


def test_grey_needs_every_image_to_be_grey(encode: Encode) -> None:
    grey, colour = encode(np.zeros((2, 2))), encode(np.zeros((2, 2, 3)))
    assert count_channels([grey] * (PEEK + 9), X) == 1
    assert count_channels([grey] * (PEEK - 1) + [colour], X) == 3
    with pytest.raises(
        DataError, match=r"^x: the image of row 256 is in colour but all before are grey: convert the images to RGB$"
    ):
        count_channels([grey] * PEEK + [colour], X)


def test_size_takes_the_centre_of_the_resized_image(encode: Encode) -> None:
    """7 of 8 of the short side, from the middle: a square drawn there fills the crop, its frame is cut away."""
    pixels = np.zeros((64, 128))
    pixels[4:60, 36:92] = 200
    images, *_ = decode([encode(pixels)], channels=1, size=56, called=X)
    assert images.shape == (1, 1, 56, 56)
    assert (images == 200).all()


def test_size_makes_one_shape_of_many(encode: Encode) -> None:
    many = [encode(np.full((40, 30), 50)), encode(np.full((30, 90), 70)), encode(np.full((10, 10), 90))]
    images, *_ = decode(many, channels=1, size=28, called=X)
    assert images.shape == (3, 1, 28, 28)
    assert images.float().mean((1, 2, 3)).tolist() == [50, 70, 90]


def test_bilinear_resize_of_a_ramp_stays_a_ramp(encode: Encode) -> None:
    ramp = np.tile(np.arange(0, 256, 2), (128, 1))
    images, *_ = decode([encode(ramp)], channels=1, size=56, called=X)
    inside = images[0, 0].float()
    assert (inside[0, 1:] - inside[0, :-1] == 4).all()
    assert inside.mean() == pytest.approx(127, abs=0.6)


def test_images_of_two_shapes_need_a_size(encode: Encode) -> None:
    two = [encode(np.zeros((2, 3))), encode(np.zeros((3, 2)))]
    wanted = (
        r"^x: the image of row 1 is 2x3 but x: the image of row 0 is 3x2: give --size 224, for example, which resizes "
        r"and crops all images to one shape$"
    )
    with pytest.raises(DataError, match=wanted):
        decode(two, channels=1, size=None, called=X)


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
        decode([encode(np.zeros((4, 4))), raw], channels=1, size=None, called=rows_of("file"))
    message = str(caught.value)
    assert message.startswith("file: the image of row 1 cannot be decoded (")
    assert message.endswith("): fetch or write the file again")
    assert "\n" not in message


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_half_an_image_is_refused(encode: Encode, form: str) -> None:
    whole = encode(np.random.RandomState(0).randint(0, 256, (32, 32)), form)
    with pytest.raises(DataError, match=r"^x: the image of row 0 cannot be decoded .*: fetch or write the file again$"):
        decode([whole[: len(whole) // 2]], channels=1, size=None, called=X)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (10_000, 10_000), (60_000, 60_000)])
def test_decompression_bombs_are_refused_unread(width: int, height: int) -> None:
    with pytest.raises(DataError, match=r"^x: the image of row 0 exceeds 64 megapixels: make it smaller$"):
        decode([bomb(width, height)], channels=1, size=None, called=X)


def test_a_long_thin_image_must_not_grow_into_a_bomb(encode: Encode) -> None:
    with pytest.raises(DataError, match=r"^x: the image of row 0 exceeds 64 megapixels: make it smaller$"):
        decode([encode(np.zeros((1, 5000)))], channels=1, size=224, called=X)


def test_sixteen_bit_pixels_are_refused_rather_than_cut() -> None:
    deep = saved(Image.fromarray(np.full((2, 2), 40_000, np.uint16)))
    with pytest.raises(
        DataError, match=r"^x: the image of row 0 has pixels of mode I;16: save it with 8 bits a channel$"
    ):
        decode([deep], channels=1, size=None, called=X)


def wide_png(width: int, height: int) -> bytes:
    """A PNG of RGB with 16 bits a channel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80\x01" * 3 * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_sixteen_bits_a_channel_in_colour_are_refused_though_pillow_cuts_them() -> None:
    assert Image.open(io.BytesIO(wide_png(2, 2))).mode == "RGB"
    with pytest.raises(DataError, match=r"^x: the image of row 0 has 16 bits a channel: save it with 8 bits a channel"):
        decode([wide_png(2, 2)], channels=3, size=None, called=X)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_an_animation_is_refused(form: str) -> None:
    buffer = io.BytesIO()
    first, *rest = [Image.new("RGB", (4, 4), (60 * i, 0, 0)) for i in range(3)]
    first.save(buffer, form, save_all=True, append_images=rest)
    with pytest.raises(DataError, match=r"^x: the image of row 0 is an animation of 3 frames: save one of them as an"):
        decode([buffer.getvalue()], channels=3, size=None, called=X)


def test_the_previews_of_a_camera_do_not_make_a_photograph_an_animation() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (128, 128, 128)).save(
        buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))]
    )
    images, jpeg, _ = decode([buffer.getvalue()], channels=3, size=None, called=X)
    assert jpeg
    assert (images.int() - 128).abs().max() <= 1


def test_alpha_is_dropped_and_palettes_and_cmyk_become_rgb_and_it_is_said() -> None:
    alpha = Image.fromarray(np.array([[[10, 20, 30, 0]]], np.uint8), "RGBA")
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 40, 50, 60])
    cmyk = Image.fromarray(np.array([[[0, 255, 0, 0]]], np.uint8), "CMYK")
    buffer = io.BytesIO()
    cmyk.save(buffer, "JPEG", quality=100)
    raws = [saved(alpha), saved(palette), buffer.getvalue(), saved(Image.new("LA", (1, 1), (7, 9)))]
    images, _, remarks = decode(raws, channels=3, size=None, called=X)
    assert images[0].flatten().tolist() == [10, 20, 30]
    assert images[1].flatten().tolist() == [40, 50, 60]
    assert (images[2].flatten().int() - torch.tensor([255, 0, 255])).abs().max() <= 2  # 255 (1 - ink)
    assert images[3].flatten().tolist() == [7, 7, 7]
    assert remarks == ("alpha of 2 images dropped", "1 CMYK image as RGB", "1 grey image as RGB")


def test_an_orientation_in_exif_data_is_said_and_not_applied() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    images, _, remarks = decode([buffer.getvalue()], channels=1, size=None, called=X)
    assert images[0, 0].tolist() == pixels.tolist()
    assert remarks == ("EXIF orientation of 1 image not applied",)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 33), (28, 28)])
def test_size_is_torchvisions_resize_and_center_crop(encode: Encode, height: int, width: int) -> None:
    """Resize(32) and CenterCrop(28), written out; interpolate is another implementation of the same filter."""
    pixels = np.random.RandomState(height).randint(0, 256, (height, width, 3))
    images, _, remarks = decode([encode(pixels)], channels=3, size=28, called=X)
    new = (32, int(32 * width / height)) if height <= width else (int(32 * height / width), 32)
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(whole, new, mode="bilinear", antialias=True)
    top, left = round((new[0] - 28) / 2.0), round((new[1] - 28) / 2.0)
    assert (images.float() - resized[:, :, top : top + 28, left : left + 28]).abs().max() <= 1.01
    assert remarks == ("resized bilinearly to a short side of 32, cropped to the central 28 x 28",)
