"""The images that cascade adversarial training is trained on."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest, kstest
from torch import Tensor, nn

from unmask.cases.iclr2018.cascade import Cascade, LeastLikely
from unmask.randomness import make_keys, use_keys
from unmask.training.classifier import Perturb

LARGEST = 16 / 255


def linear(classes: int = 4, seed: int = 0, scale: float = 1.0) -> nn.Module:
    torch.manual_seed(seed)
    read = nn.Linear(32, classes)
    read.weight.data *= scale
    return nn.Sequential(nn.Flatten(), read).eval()


def images(n: int) -> Tensor:
    return torch.rand(n, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def perturbed(perturb: Perturb, model: nn.Module, x: Tensor, y: Tensor | None = None, progress: float = 0.5) -> Tensor:
    rows = torch.arange(100, 100 + len(x))
    with use_keys(make_keys(0, rows, "test")):
        return perturb(model, x, torch.zeros(len(x)).long() if y is None else y, progress, rows)


@pytest.mark.parametrize("cascade", [False, True])
def test_images_lie_in_the_box_and_within_the_largest_length(cascade: bool) -> None:
    x = images(200)
    x[:50] = x[:50].round()
    before = x.clone()
    found = perturbed(Cascade(linear(seed=1)) if cascade else LeastLikely(), linear(), x)
    assert torch.equal(x, before)
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found - x).abs().max() <= LARGEST * (1 + 1e-5)


@pytest.mark.parametrize("largest", [LARGEST, 0.2])
def test_lengths_are_those_of_a_normal_that_is_cut_off(largest: float) -> None:
    """|N(0, largest / 2)| exceeds ``largest`` once in 22 times."""
    n = 4000
    x = torch.full((n, 2, 4, 4), 0.5)
    moved = (perturbed(LeastLikely(largest), linear(), x) - x).abs().flatten(1)
    length = moved.amax(1)
    assert torch.allclose(moved, length[:, None].expand_as(moved), atol=1e-6)  # the same in each pixel
    cut = length > largest - 1e-6
    beyond = math.erfc(2 / math.sqrt(2))
    assert binomtest(int(cut.sum()), n, beyond).pvalue > 0.01
    inside = length[~cut].double().numpy()
    erf = torch.special.erf
    assert (
        kstest(inside, lambda a: erf(torch.as_tensor(a) * math.sqrt(2) / largest).numpy() / (1 - beyond)).pvalue > 0.01
    )


def test_the_step_makes_the_least_likely_class_likelier() -> None:
    model, x = linear(), images(300)
    least = model(x).argmin(1)
    assert len(least.unique()) > 1
    found = perturbed(LeastLikely(), model, x)
    before, after = (F.cross_entropy(model(z), least, reduction="none") for z in (x, found))
    assert (after < before).all()


def test_labels_play_no_part_in_the_step() -> None:
    model, x = linear(), images(20)
    assert torch.equal(perturbed(LeastLikely(), model, x), perturbed(LeastLikely(), model, x, torch.arange(20) % 4))


def test_every_second_image_is_made_on_the_source() -> None:
    x, y, cascade = images(13), torch.arange(13) % 4, Cascade(linear(seed=1))
    a, b = (perturbed(cascade, linear(seed=seed), x, y) for seed in (2, 3))
    assert torch.equal(a[::2], b[::2])
    assert (a[1::2] != b[1::2]).flatten(1).any(1).all()
    for found, seed in ((a, 2), (b, 3)):
        assert torch.equal(found[1::2], perturbed(LeastLikely(), linear(seed=seed), x, y)[1::2])
    other = perturbed(Cascade(linear(seed=4)), linear(seed=2), x, y)
    assert torch.equal(other[1::2], a[1::2])
    assert (other[::2] != a[::2]).flatten(1).any(1).all()


def test_images_of_the_source_are_the_worst_of_half_the_length() -> None:
    """On two classes of a linear source the iterated attack ends in the corner of the ball, but for the box."""
    source, x, y = linear(2, seed=1), images(8), torch.arange(8) // 2 % 2
    found = perturbed(Cascade(source), linear(), x, y)
    weight = source.get_parameter("1.weight")
    sign = (weight[1] - weight[0]).sign().view(1, 2, 4, 4) * torch.where(y == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    assert torch.allclose(found[::2], (x + LARGEST / 2 * sign).clamp(0, 1)[::2], atol=1e-6)


def test_no_gradients_are_left_behind() -> None:
    source, model = linear(seed=1).requires_grad_(False), linear()
    perturbed(Cascade(source), model, images(4))
    assert all(p.grad is None for m in (source, model) for p in m.parameters())
