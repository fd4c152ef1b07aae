from __future__ import annotations

import math

import pytest
import torch

from unmask.nets.logistic_mixture import log_likelihood
from unmask.nets.pixel_cnn import PixelCNN, Waves


def net(channels: int = 3) -> PixelCNN:
    torch.manual_seed(0)
    return PixelCNN(channels, width=6, layers=3, components=2).double()


def images(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("place", [(0, 0), (0, 5), (3, 0), (3, 4), (5, 6)])
def test_a_pixel_moves_the_distributions_of_later_pixels_alone(place: tuple[int, int]) -> None:
    model, levels = net(), images(1, 3, 6, 7)
    before = model(levels)[0]
    levels[0, :, place[0], place[1]] = 255 - levels[0, :, place[0], place[1]]
    moved = (model(levels)[0] != before).any(-1).flatten()
    first = place[0] * 7 + place[1] + 1
    assert not moved[:first].any()
    if first < 6 * 7:
        assert moved[first:].any()


def test_within_its_cone_a_pixel_overlooks_nothing() -> None:
    """Up to d columns to the right d rows above, and no further: what the waves rest on."""
    model, levels = net(1), images(1, 1, 5, 7)
    before = model(levels)[0, 4, 3]
    for i in range(5):
        for j in range(7) if i < 4 else range(3):
            other = levels.clone()
            other[0, 0, i, j] = 255 - other[0, 0, i, j]
            assert (model(other)[0, 4, 3] != before).any() == (j - 3 <= 4 - i), (i, j)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(6, 7), (1, 4), (5, 2), (3, 9)])
def test_waves_give_the_same(size: tuple[int, int], channels: int) -> None:
    model, levels = net(channels), images(4, channels, *size)
    wanted, arranged = model(levels).permute(1, 2, 0, 3), levels.permute(2, 3, 0, 1)
    waves, count = Waves(model, 4, *size), 0
    for places in waves:
        torch.testing.assert_close(waves.parameters(), wanted[places])
        waves.push(arranged[places])
        count += 1
    assert count == len(waves) == size[1] + 2 * (size[0] - 1)


def test_waves_need_two_columns() -> None:
    with pytest.raises(ValueError, match="2 columns"):
        Waves(net(), 4, 6, 1)


def test_bits_per_dim_are_those_of_the_product_of_all_pixels() -> None:
    model, levels = net(), images(2, 3, 4, 5)
    nats = log_likelihood(model(levels), levels.permute(0, 2, 3, 1)).sum((1, 2))
    torch.testing.assert_close(model.bits_per_dim(levels), -nats / (3 * 4 * 5) / math.log(2))
