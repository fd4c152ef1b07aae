from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from unmask.defenses.post2018.inputs.diffpure import DiffPure, DiffusionPurify, linear_schedule
from unmask.gradients.autograd import autograd
from unmask.nets import UNet
from unmask.randomness import make_keys, use_keys

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
KEPT = linear_schedule()


class Knows(nn.Module):
    """The noise in images of which only ``image`` (B, C, H, W), in [-1, 1], is possible."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        share = KEPT[time].view(-1, 1, 1, 1)
        told: Tensor = (noisy - share.sqrt() * self.image) / (1 - share).sqrt()
        return told


class Normal(nn.Module):
    """The expected noise in images whose elements are independent and standard normal."""

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        told: Tensor = (1 - KEPT[time]).sqrt().view(-1, 1, 1, 1) * noisy
        return told


def keys(rows: range = range(6)) -> AbstractContextManager[None]:
    return use_keys(make_keys(0, rows, "draws"))


def test_the_schedule_is_that_of_ho_et_al() -> None:
    assert len(KEPT) == 1001
    assert KEPT[0] == 1
    assert KEPT[1] == pytest.approx(1 - 1e-4)
    assert KEPT[2] == pytest.approx((1 - 1e-4) * (1 - 1e-4 - (0.02 - 1e-4) / 999))
    assert (KEPT.diff() < 0).all()


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_a_denoiser_that_knows_the_image_restores_it(steps: int) -> None:
    purify = DiffusionPurify(Knows(2 * X - 1), until=100, steps=steps)
    assert torch.allclose(purify((X + 0.3).clamp(0, 1)), X, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
def test_steps_have_the_mean_and_the_variance_of_ancestral_sampling(steps: int) -> None:
    torch.manual_seed(0)
    purify = DiffusionPurify(Normal(), until=300, steps=steps)
    image = torch.randn(400, 1, 10, 10)
    purified = 2 * purify((image + 1) / 2) - 1
    mean, variance = float(KEPT[300].sqrt()), 1.0  # the factor of the image; of the image with noise
    for time, after in pairwise(purify.times):
        left = float(KEPT[time] / KEPT[after])
        mean *= left**0.5
        variance = left * variance + (1 - left) * float((1 - KEPT[after]) / (1 - KEPT[time]))
    assert float((purified * image).mean()) == pytest.approx(mean, abs=0.02)
    assert float(purified.var()) == pytest.approx(variance, abs=0.02)


def test_times_are_spread_evenly_from_the_last_to_none() -> None:
    assert DiffusionPurify(Normal(), until=100, steps=4).times == [100, 75, 50, 25, 0]
    assert DiffusionPurify(Normal(), until=3, steps=3).times == [3, 2, 1, 0]


def test_each_image_has_its_own_draws_whatever_the_batch() -> None:
    purify = DiffusionPurify(Normal(), until=50, steps=3)
    with keys():
        whole = purify(X)
    with keys(range(4, 6)):
        part = purify(X[4:])
    assert torch.equal(whole[4:], part)
    assert not torch.equal(whole, purify(X))


def test_the_gradient_is_that_of_all_steps() -> None:
    """Normal images shrink by a factor in each step, whatever is drawn."""
    purify = DiffusionPurify(Normal(), until=100, steps=4)
    with keys():
        _, slope = autograd(lambda z, rows=None: purify(z).flatten(1).sum(1), X)
    factor = float(KEPT[100].sqrt())
    for time, after in pairwise(purify.times):
        factor *= float((KEPT[time] / KEPT[after]).sqrt())  # the mean of a normal image, given a noisier one
    assert torch.allclose(slope, torch.full_like(X, factor), atol=1e-4)


def test_the_memory_of_a_gradient_does_not_grow_with_the_steps() -> None:
    held: dict[int, int] = {}
    for steps in (2, 8):
        seen: list[int] = []

        def keep(tensor: Tensor, seen: list[int] = seen) -> Tensor:
            seen.append(tensor.numel())
            return tensor

        purify = DiffusionPurify(UNet(widths=(8, 16)), until=50, steps=steps)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            purify(X.clone().requires_grad_())
        held[steps] = sum(seen)
    assert held[8] - held[2] <= 6 * 2 * X.numel()  # what a step starts from, and its noise
    assert held[8] < 8 * 4 * X.numel()


def test_the_defense_classifies_what_the_purification_gives() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    model = DiffPure(net, DiffusionPurify(Knows(2 * X - 1), until=20, steps=2))
    assert torch.allclose(model(torch.zeros_like(X)), net(X), atol=1e-4)


@pytest.mark.parametrize(("until", "steps"), [(0, 1), (5, 6), (1001, 2), (10, 0)])
def test_impossible_times_are_refused(until: int, steps: int) -> None:
    with pytest.raises(ValueError, match="diffusion needs"):
        DiffusionPurify(Normal(), until=until, steps=steps)
