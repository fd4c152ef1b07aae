from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from unmask.defenses.preprocessed import Preprocessed
from unmask.defenses.transforms.jpeg import JPEG, tables
from unmask.gradients.bpda import bpda
from unmask.gradients.straight_through import straight_through


def pictures(n: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Whole levels over 255: waves of random frequencies, as in photographs weaker the finer, and edges."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = (torch.arange(side) / 64 for side in (height, width))
    x = torch.full((n, channels, height, width), 0.5)
    for k in range(1, 30):
        turn, phase = torch.rand(2, n, channels, 1, 1, generator=draw) * 6.3
        x += 0.4 / k * torch.sin(k * (turn.cos() * rows[:, None] + turn.sin() * columns) * 6.3 + phase)
    x[..., height // 3 :, width // 2 :] -= 0.3
    return (x.clamp(0, 1) * 255).round() / 255


def pillow(x: Tensor, quality: int) -> Tensor:
    images = []
    for image in (255 * x).round().byte().permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(buffer, "JPEG", quality=quality)
        images.append(np.asarray(Image.open(buffer)).reshape(image.shape))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255


def compare(x: Tensor, quality: int, most: float, share: float) -> None:
    got = JPEG(quality)(x)
    assert got.dtype == x.dtype
    assert torch.allclose(255 * got, (255 * got).round(), atol=1e-4)
    levels = (255 * (got - pillow(x, quality))).abs().round()
    assert levels.max() <= most
    assert (levels > 0).float().mean() <= share


@pytest.mark.parametrize("quality", [5, 25, 50, 75, 90, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_pillow(channels: int, quality: int) -> None:
    compare(pictures(4, channels, 96, 64), quality, most=8, share=1e-2)


@pytest.mark.parametrize("quality", [10, 75])
def test_agrees_with_pillow_on_noise(quality: int) -> None:
    noise = torch.randint(256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(1)) / 255
    compare(noise, quality, most=8, share=1e-2)


SIDES = [(1, 1), (2, 3), (3, 2), (9, 4), (4, 9), (5, 5), (8, 8), (15, 17), (16, 33), (31, 46), (40, 24)]


@pytest.mark.parametrize(("height", "width"), SIDES)
def test_agrees_with_pillow_whatever_the_sides(height: int, width: int) -> None:
    compare(pictures(8, 3, height, width), 75, most=2, share=5e-3)
    compare(pictures(8, 1, height, width), 75, most=2, share=5e-3)


def test_agrees_with_pillow_on_flat_colours() -> None:
    """Where means and colour differences are exact halves."""
    colours = torch.cartesian_prod(*[torch.tensor([0, 1, 2, 127, 128, 200, 254, 255])] * 3)
    compare((colours / 255).view(-1, 3, 1, 1).expand(-1, -1, 16, 16), 75, most=0, share=0)


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 97, 100])
def test_tables_are_those_in_the_file(quality: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    written = Image.open(buffer).quantization  # type: ignore[attr-defined]
    for mine, theirs in zip(tables(quality), (written[0], written[1]), strict=True):
        assert mine.flatten().tolist() == list(theirs)


def test_values_are_truncated_to_levels() -> None:
    whole = pictures(2, 3, 16, 16) * 200 / 255
    whole = (255 * whole).round() / 255
    assert torch.equal(JPEG()(whole + 0.9 / 255), JPEG()(whole))
    assert torch.equal(JPEG()(whole.double()).float(), JPEG()(whole))


def test_an_image_does_not_depend_on_the_batch() -> None:
    x = pictures(9, 3, 40, 40)
    whole = JPEG()(x)
    assert torch.equal(torch.cat([JPEG()(image[None]) for image in x]), whole)
    assert torch.equal(JPEG()(x.to(memory_format=torch.channels_last)), whole)
    assert JPEG()(x[:0]).shape == (0, 3, 40, 40)


def test_the_input_stays_as_it_is() -> None:
    x = pictures(2, 3, 16, 16)
    before = x.clone()
    JPEG()(x)
    assert torch.equal(x, before)


def test_no_gradient_passes_by_itself() -> None:
    x = pictures(1, 3, 16, 16).requires_grad_()
    JPEG()(x).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


class Weighted(nn.Module):
    """A fixed sum of the pixels, (B, 1)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_without_the_rounding_brightness_comes_back_as_it_was(channels: int) -> None:
    x = (pictures(2, channels, 16, 24) * 0.5 + 0.25).requires_grad_()
    weight = torch.randn(1, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    model = Preprocessed(JPEG(90), Weighted(weight.expand(1, channels, 16, 24)))
    out = bpda("transform.quantise")(model)(x)
    assert torch.equal(out, model(x.detach()))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.allclose(gradient.sum(1, keepdim=True), channels * weight.expand(2, -1, -1, -1), atol=3e-3)


def test_without_the_rounding_colour_comes_back_smoothed() -> None:
    """Cb of one pixel is averaged over 2x2, then spread over 4x4, by 9 / 16 in the middle."""
    x = (pictures(1, 3, 16, 16) * 0.25 + 0.375).requires_grad_()
    weight = torch.zeros(1, 3, 16, 16)
    weight[:, 2, 6:8, 6:8] = 1  # blue of those 2x2
    model = bpda("transform.quantise")(Preprocessed(JPEG(90), Weighted(weight)))
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    cb = torch.tensor([0, -0.34414, 1.772])  # in RGB
    for row, column in ((6, 6), (6, 7), (7, 6), (7, 7)):
        assert gradient[0, :, row, column] @ cb == pytest.approx(1.772 * 9 / 16, abs=1e-3)
    assert gradient[0, :, 5, 6] @ cb == pytest.approx(1.772 * 3 / 32, abs=1e-3)
    assert gradient[0, :, 5, 5] @ cb == pytest.approx(1.772 / 64, abs=1e-3)
    assert gradient[0, :, 3, 6].abs().max() < 1e-3


def test_bypassing_it_whole_and_straight_through() -> None:
    x = (pictures(2, 3, 16, 16) * 0.5 + 0.25).requires_grad_()
    weight = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = Preprocessed(JPEG(75), Weighted(weight))
    for view in (bpda("transform"), straight_through):
        out = view(model)(x)
        assert torch.equal(out, model(x.detach()))
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert torch.nn.functional.cosine_similarity(gradient, weight.expand_as(x), 1).mean() > 0.5


def test_autocast_and_half_precision_change_nothing_inside() -> None:
    x = pictures(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(JPEG()(x), JPEG()(x))
        inside = JPEG()(x)
    assert torch.equal(inside, JPEG()(x))
    assert JPEG()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("quality", [0, 101])
def test_other_qualities_are_refused(quality: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 100, not {quality}"):
        JPEG(quality)


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 4, 8, 8), (3, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="JPEG takes images"):
        JPEG()(torch.zeros(shape))
