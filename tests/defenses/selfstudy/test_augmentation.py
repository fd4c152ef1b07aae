from __future__ import annotations

import colorsys

import pytest
import torch

from unmask.defenses.selfstudy.augmentation import StrongAugmentation, brightness, contrast, hue, saturation

X = torch.rand(6, 3, 5, 4, generator=torch.Generator().manual_seed(0))


def pixels(x: torch.Tensor) -> list[tuple[float, float, float]]:
    return [(r, g, b) for r, g, b in x.permute(0, 2, 3, 1).reshape(-1, 3).tolist()]


@pytest.mark.parametrize("turn", [-0.1, 0.0, 0.07, 0.5])
def test_hue_is_that_of_the_standard_library(turn: float) -> None:
    expected = []
    for pixel in pixels(X):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb((h + turn) % 1, s, v))
    turned = hue(X, torch.full((6, 1, 1, 1), turn))
    assert torch.allclose(torch.tensor(pixels(turned)), torch.tensor(expected), atol=1e-5)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 9.0])
def test_saturation_is_that_of_the_standard_library(factor: float) -> None:
    expected = []
    for pixel in pixels(X):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb(h, min(1.0, s * factor), v))
    changed = saturation(X, torch.full((6, 1, 1, 1), factor))
    assert torch.allclose(torch.tensor(pixels(changed)), torch.tensor(expected), atol=1e-5)


def test_contrast_keeps_the_mean_and_scales_the_deviation_and_brightness_adds() -> None:
    changed = contrast(X, torch.full((6, 1, 1, 1), 0.5))
    assert torch.allclose(changed.mean((2, 3)), X.mean((2, 3)), atol=1e-6)
    assert torch.allclose(changed.var((2, 3)), X.var((2, 3)) / 4, atol=1e-6)
    assert torch.equal(brightness(X, torch.full((6, 1, 1, 1), 0.1)), X + 0.1)


def test_without_strength_images_are_only_mirrored_and_moved_over_their_reflection() -> None:
    x = torch.arange(64.0).view(1, 1, 8, 8).expand(200, 3, 8, 8) / 64
    torch.manual_seed(0)
    seen = StrongAugmentation(strength=0.0, shift=2)(x)
    padded = torch.nn.functional.pad(x[:1], (2, 2, 2, 2), mode="reflect")
    places = [padded[0, :, i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    mirrored = torch.nn.functional.pad(x[:1].flip(3), (2, 2, 2, 2), mode="reflect")
    places += [mirrored[0, :, i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    found = [[i for i, place in enumerate(places) if torch.allclose(place, one, atol=1e-5)] for one in seen]
    assert all(found)
    assert len({i for one in found for i in one}) > 40


def test_grey_images_stay_grey_and_everything_stays_in_the_box() -> None:
    torch.manual_seed(0)
    grey = torch.rand(20, 1, 8, 8).expand(20, 3, 8, 8)
    seen = StrongAugmentation()(grey)
    assert ((seen >= 0) & (seen <= 1)).all()
    assert torch.allclose(seen.amax(1), seen.amin(1), atol=1e-5)


def test_each_image_has_a_draw_and_a_gradient_of_its_own() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 16).expand(4, 3, 16, 16).clone().requires_grad_()
    seen = StrongAugmentation()(x)
    assert not torch.allclose(seen[0], seen[1], atol=1e-2)
    seen[2].sum().backward()
    assert x.grad is not None
    assert x.grad.flatten(1).abs().sum(1).nonzero().flatten().tolist() == [2]
