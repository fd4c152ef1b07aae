from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unmask.defenses.post2018.inputs.barrage.barrage import GROUPS, Barrage
from unmask.defenses.post2018.inputs.barrage.colour import colour_space, contrast, grey_scale, precision
from unmask.defenses.post2018.inputs.barrage.place import denoise, fourier, jpeg, noise, swirl, zoom
from unmask.randomness import make_keys, use_keys

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(6, 3, 16, 16, generator=GENERATOR)
U = torch.rand(6, 8, generator=GENERATOR)
FIELD = torch.rand(6, 3, 16, 16, generator=GENERATOR)


def numbers(**at: float) -> Tensor:
    """(1, 8) uniform numbers: 0.5, but where another is given, as ``u3=0.1``."""
    u = torch.full((1, 8), 0.5)
    for name, value in at.items():
        u[0, int(name[1:])] = value
    return u


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_group_treats_images_by_themselves_and_stays_in_range(group) -> None:
    out = group(X, U, FIELD)
    assert out.shape == X.shape
    assert ((out >= 0) & (out <= 1)).all()
    assert not torch.equal(out, X)
    for i in range(len(X)):
        assert torch.allclose(group(X[i : i + 1], U[i : i + 1], FIELD[i : i + 1])[0], out[i], atol=1e-6)


def test_precision_leaves_as_many_steps_as_drawn() -> None:
    """The number 0 stands for the least levels, 8: in all channels alike, by a coin below 0.5."""
    out = precision(X[:1], numbers(u0=0.0, u3=0.1), FIELD)
    assert torch.allclose((out * 8).round(), out * 8, atol=1e-5)
    assert (out - X[:1]).abs().max() <= 1 / 16 + 1e-6


def through_pillow(levels: Tensor, quality: int) -> Tensor:
    """(3, H, W) levels of 0 to 255, compressed by libjpeg with colour at the full resolution."""
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).numpy().astype(np.uint8)).save(file, "jpeg", quality=quality, subsampling=0)
    return torch.tensor(np.asarray(Image.open(file))).permute(2, 0, 1).float()


@pytest.mark.parametrize(("quality", "drawn"), [(55, 0.0), (95, 0.999)])
def test_jpeg_is_that_of_pillow(quality: int, drawn: float) -> None:
    """Grey images are equal; in colours libjpeg's integers put a few coefficients on the other side of a half."""
    ramp = torch.linspace(0, 255, 16)
    grey = (ramp[:, None] * ramp / 255).round().expand(1, 3, 16, 16)
    coloured = (F.interpolate(X[:, :, :4, :4], 16, mode="bilinear") * 255).round()
    images = torch.cat((grey, coloured))
    field = torch.zeros_like(images)
    out = jpeg(images / 255, numbers(u0=drawn).expand(len(images), -1), field) * 255
    expected = torch.stack([through_pillow(image, quality) for image in images])
    assert (out - expected)[0].abs().max() <= 1.01
    error, change = (out - expected)[1:].abs().mean(), (images - expected)[1:].abs().mean()
    assert error < 0.6
    assert error < 0.3 * change


def test_swirl_turns_the_near_and_leaves_the_far() -> None:
    still = swirl(X[:1], numbers(u0=-40.0, u1=-40.0), FIELD)  # the point lies far outside of the image
    assert torch.allclose(still, X[:1], atol=1e-4)


def test_zoom_magnifies_a_ramp_by_the_share_that_is_left() -> None:
    """Cropped by 1 pixel of 16 at each edge, the slope of a ramp becomes 14 / 16."""
    ramp = (torch.arange(16.0) / 16).expand(1, 3, 16, 16)
    out = zoom(ramp, numbers(u0=0.0, u1=0.0, u2=0.0, u3=0.0), FIELD)
    assert torch.allclose(out.diff(dim=3)[..., 1:-1], torch.tensor(14 / 16 / 16), atol=1e-5)


@pytest.mark.parametrize(("way", "function"), [(0.5, torch.mean), (0.9, torch.median)])
def test_denoising_by_the_mean_or_the_median_of_nine(way: float, function) -> None:
    out = denoise(X[:1], numbers(u7=way), FIELD)
    assert out[0, 1, 4, 7].item() == pytest.approx(function(X[0, 1, 3:6, 6:9]).item(), abs=1e-6)


def test_fourier_keeps_the_mean_and_drops_the_high_frequencies() -> None:
    """With a share of 1 / 16 only the row and the column of frequency 0 stay: the mean of a checkerboard."""
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).float().expand(1, 3, 16, 16)
    u = numbers(u3=0.9, u4=0.9, u5=0.9)
    u[:, :3] = 1.01 / 16 / 0.95
    out = fourier(board, u, torch.zeros(1, 3, 16, 16))  # the factor 0.98
    assert torch.allclose(out, torch.tensor(0.49), atol=1e-5)


def test_colours_are_moved_in_a_space_and_back() -> None:
    """In YUV, an offset of brightness alone is the same for red, green and blue."""
    grey = torch.full((1, 3, 2, 2), 0.5)
    assert torch.allclose(colour_space(grey, numbers(u0=1.0, u3=0.1), grey), grey + 0.05, atol=1e-3)
    assert torch.allclose(colour_space(grey, numbers(u3=0.9), grey), grey, atol=1e-4)


def test_contrast_is_stretched_or_equalised() -> None:
    narrow = 0.4 + 0.1 * X[:1]
    stretched = contrast(narrow, numbers(u7=0.9), FIELD)
    assert (stretched.amin((2, 3)) == 0).all()
    assert (stretched.amax((2, 3)) == 1).all()
    ranks = contrast(X[:1], numbers(u6=0.999, u7=0.1), FIELD).flatten(2).sort(2).values  # 256 bins
    assert (ranks - torch.arange(1, 257) / 256).abs().max() < 0.03


@pytest.mark.parametrize(("way", "grey"), [(0.1, [0, 1, 2]), (0.6, [0, 2])])
def test_grey_takes_the_place_of_all_or_of_two_channels(way: float, grey: list[int]) -> None:
    out = grey_scale(X[:1], numbers(u6=0.5, u7=way), FIELD)[0]
    mean = X[0].mean(0)  # equal weights
    for channel in range(3):
        assert torch.allclose(out[channel], mean if channel in grey else X[0, channel], atol=1e-5)


def test_noise_is_that_of_the_field() -> None:
    salted = noise(X[:1], numbers(u0=0.1, u7=0.5), FIELD[:1])
    assert torch.equal(salted, torch.where(FIELD[:1] < 0.05, 1.0, X[:1]))
    normal = noise(0 * X[:1] + 0.5, numbers(u0=0.1, u7=0.1), torch.full((1, 3, 16, 16), 0.841345))
    assert torch.allclose(normal, torch.tensor(0.6), atol=1e-4)  # one standard deviation above


def test_each_image_has_other_groups_in_another_order() -> None:
    image = X[:1].expand(64, -1, -1, -1)
    with use_keys(make_keys(0, range(64), "test")):
        out = Barrage(5)(image)
    with use_keys(make_keys(0, range(32, 64), "test")):
        assert torch.allclose(Barrage(5)(image[32:]), out[32:], atol=1e-6)
    assert len({tuple(o.flatten().tolist()) for o in out}) == 64


def test_each_of_the_drawn_groups_is_applied_once_to_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Group g adds 2^g, so that the sum tells the groups."""
    tell = [lambda x, u, field, group=group: x + 2.0**group for group in range(10)]
    monkeypatch.setattr("unmask.defenses.post2018.inputs.barrage.barrage.GROUPS", tuple(tell))
    assert (Barrage(10)(torch.zeros(8, 3, 8, 8)) == 2**10 - 1).all()
    sums = Barrage(4)(torch.zeros(400, 3, 8, 8))[:, 0, 0, 0].int().tolist()
    assert {total.bit_count() for total in sums} == {4}
    assert all(sum(total >> group & 1 for total in sums) > 100 for group in range(10))  # of 160 +- 10


@pytest.mark.parametrize("count", [0, 11])
def test_a_count_without_meaning_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 10 transformations"):
        Barrage(count)
