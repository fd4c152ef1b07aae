from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor

from unmask.training.augmentation import mirrored, shifted


def images(n: int, height: int = 5, width: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(n, 2, height, width, generator=torch.Generator().manual_seed(seed))


def offsets(x: Tensor, moved: Tensor, most: int) -> Tensor:
    """(B,) which of the (2 most + 1)^2 crops of the padded image each moved one is."""
    found = torch.full((len(x),), -1)
    for i, (image, other) in enumerate(zip(x, moved, strict=True)):
        padded = F.pad(image[None], (most,) * 4, mode="replicate")[0]
        for at in range((2 * most + 1) ** 2):
            top, left = divmod(at, 2 * most + 1)
            if torch.equal(padded[:, top : top + image.shape[1], left : left + image.shape[2]], other):
                found[i] = at
    return found


@pytest.mark.parametrize("most", [1, 2])
def test_each_image_moves_by_an_offset_of_its_own(most: int) -> None:
    n = 1500
    x = images(n)
    found = offsets(x, shifted(x, most, torch.Generator().manual_seed(1)), most)
    assert found.min() >= 0  # each is a crop
    counts = found.bincount(minlength=(2 * most + 1) ** 2)
    assert len(counts) == (2 * most + 1) ** 2
    assert chisquare(counts.numpy()).pvalue > 0.01


def test_the_border_is_repeated() -> None:
    x = torch.arange(4.0).view(1, 1, 1, 4)
    seen = {tuple(shifted(x, 3, torch.Generator().manual_seed(seed)).flatten().tolist()) for seed in range(200)}
    rows = [0.0] * 3 + [0.0, 1.0, 2.0, 3.0] + [3.0] * 3
    assert seen == {tuple(rows[i : i + 4]) for i in range(7)}


def test_no_shift_is_the_identity() -> None:
    generator = torch.Generator().manual_seed(0)
    x = images(3)
    assert torch.equal(shifted(x, 0, generator), x)


def test_the_generator_alone_decides() -> None:
    x = images(20)
    first, second, other = (shifted(x, 2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(shifted(x, 2, generator), first)
    assert not torch.equal(shifted(x, 2, generator), first)


def test_the_memory_format_is_irrelevant() -> None:
    x = images(20)
    other = x.contiguous(memory_format=torch.channels_last)
    a, b = (shifted(images, 2, torch.Generator().manual_seed(0)) for images in (x, other))
    assert torch.equal(a, b)
    assert torch.equal(mirrored(x, torch.arange(20), 3), mirrored(other, torch.arange(20), 3))


@pytest.mark.parametrize("epoch", [0, 1, 6])
def test_two_epochs_show_each_example_once_each_way(epoch: int) -> None:
    n = 1000
    x, index = images(n), torch.arange(n) * 47
    first, second = mirrored(x, index, epoch), mirrored(x, index, epoch + 1)
    turned = (first == x.flip(3)).flatten(1).all(1)
    assert torch.equal(first, torch.where(turned[:, None, None, None], x.flip(3), x))
    assert torch.equal(second, torch.where(turned[:, None, None, None], x, x.flip(3)))
    assert 0.45 < turned.double().mean() < 0.55
    assert torch.equal(mirrored(x, index, epoch + 2), first)


def test_the_turn_belongs_to_the_example_and_not_to_its_place() -> None:
    x, index = images(50), torch.arange(100, 150)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mirrored(x[order], index[order], 0), mirrored(x, index, 0)[order])


def test_neighbours_of_a_data_set_do_not_turn_together() -> None:
    """Sets are often sorted or in pairs: within each class of indices modulo 10, half of the images turn."""
    index = torch.arange(60_000)
    x = torch.tensor([0.0, 1.0]).expand(len(index), 1, 1, 2)
    turned = mirrored(x, index, 0)[:, 0, 0, 0]
    for remainder in range(10):
        assert 0.45 < turned[remainder::10].mean() < 0.55
