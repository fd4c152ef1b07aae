from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unmask.cases.iclr2018.logit_space import LogitSpace
from unmask.defenses.thermometer import Encode, Thermometer
from unmask.randomness import make_keys, use_keys
from unmask.threats import Linf

SHAPE = (2, 4, 5)


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def attacked(attack: LogitSpace, model: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    rows = torch.arange(len(x))
    with use_keys(make_keys(seed, rows, "test")):
        return attack(model, x, y, 0.5, rows)


def bins(x: Tensor, levels: int) -> Tensor:
    """(B, C, H, W) the bin that the defense itself puts each pixel into."""
    found: Tensor = Encode(levels)(x).unflatten(1, (-1, levels)).sum(2).long() - 1
    return found


def linear(value: Tensor) -> Thermometer:
    """Of two classes, whose difference is the sum of ``value`` (C, levels, H, W) at the bins of an image."""
    steps = value.diff(dim=1, prepend=torch.zeros_like(value[:, :1]))
    read = nn.Linear(value.numel(), 2, bias=False)
    read.weight.data = torch.stack((-steps.flatten(), steps.flatten())) / 2
    return Thermometer(nn.Sequential(nn.Flatten(), read), value.shape[1])


def reached(x: Tensor, eps: float, levels: int) -> Tensor:
    """(B, C, levels, H, W) whether the ball around a pixel has a point of that bin."""
    first, last = bins((x - eps).clamp_min(0), levels), bins((x + eps).clamp_max(1), levels)
    bin_ = torch.arange(levels).view(1, 1, -1, 1, 1)
    return (bin_ >= first.unsqueeze(2)) & (bin_ <= last.unsqueeze(2))


def best(value: Tensor, x: Tensor, eps: float) -> Tensor:
    """(B,) the largest sum of values, a bin for each pixel, by trying all that are reached."""
    allowed = reached(x, eps, value.shape[1])
    return torch.where(allowed, value, -torch.inf).amax(2).flatten(1).sum(1)


def falling(levels: int, wanted: Tensor) -> Tensor:
    """(C, levels, H, W) values that fall with the distance from a bin (C, H, W), by too little to saturate the loss."""
    return -(torch.arange(levels).view(1, -1, 1, 1) - wanted.unsqueeze(1)).abs() / (8.0 * levels)


@pytest.mark.parametrize("levels", [2, 5, 16, 40])
def test_each_pixel_lands_in_the_bin_that_is_chosen_for_it(levels: int) -> None:
    """The ball is the box, so that each bin can be asked for; the pixel goes no further than it must."""
    x = images(3)
    wanted = torch.arange(x[0].numel()).view(SHAPE) % levels
    attack = LogitSpace(Linf(1.0), levels, steps=60, cooling=1.03)
    found = attacked(attack, linear(falling(levels, wanted)), x, torch.zeros(3, dtype=torch.long))
    assert torch.equal(bins(found, levels), wanted.expand(3, -1, -1, -1))
    nearest = x.clamp(wanted / levels, (wanted + 1) / levels)
    assert (found - nearest).abs().max() < 1e-3 / levels


@pytest.mark.parametrize(("eps", "levels", "steps"), [(8 / 255, 16, 7), (0.3, 8, 40), (0.02, 16, 7)])
def test_on_a_linear_classifier_the_best_code_is_found(eps: float, levels: int, steps: int) -> None:
    x, y = images(9), torch.arange(9) % 2
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(SHAPE[0], levels, *SHAPE[1:], generator=generator) / 8
    model = linear(value)
    attack = LogitSpace(Linf(eps), levels, steps, cooling=1.2 if steps == 7 else 1.02)
    logits = model(attacked(attack, model, x, y))
    difference = torch.where(y == 0, logits[:, 1] - logits[:, 0], logits[:, 0] - logits[:, 1])
    optimum = torch.where(y == 0, best(value, x, eps), best(-value, x, eps))
    assert torch.allclose(difference, optimum, atol=1e-4)
    assert (reached(x, eps, levels).sum(2) > 1).any()


def test_a_bin_that_is_only_touched_is_not_reached() -> None:
    """0.5 belongs to bin 1 of 4, which is the worst here; bin 2, the best, begins above it."""
    x = torch.full((1, *SHAPE), 0.25)
    value = torch.tensor([0.5, 0.0, 1.0, 0.0]).view(1, 4, 1, 1).expand(SHAPE[0], 4, *SHAPE[1:])
    assert torch.equal(bins(x + 0.25, 4), torch.ones(1, *SHAPE).long())
    found = attacked(LogitSpace(Linf(0.25), 4), linear(value), x, torch.zeros(1, dtype=torch.long))
    assert (bins(found, 4) == 0).all()


@pytest.mark.parametrize("values", ["any", "eighths", "black and white"])
@pytest.mark.parametrize("eps", [0.01, 8 / 255, 0.125, 0.3])
def test_images_lie_inside_ball_and_box(eps: float, values: str) -> None:
    steps: dict[str, Callable[[Tensor], Tensor]] = {
        "any": lambda x: x,
        "eighths": lambda x: (x * 8).round() / 8,  # on the edges of bins
        "black and white": torch.round,
    }
    x, y = steps[values](images(16)), torch.arange(16) % 3
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Conv2d(32, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    threat = Linf(eps)
    model = Thermometer(classifier)
    found = attacked(LogitSpace(threat), model, x, y)
    assert found.isfinite().all()
    assert (threat.distance(found, x) <= eps * (1 + 1e-6)).all()
    assert found.min() >= 0
    assert found.max() <= 1
    if values == "any":
        before, after = (nn.functional.cross_entropy(model(z), y) for z in (x, found))
        assert after > before


def test_the_keys_decide_the_start() -> None:
    x, y = images(4), torch.tensor([0, 1, 1, 0])
    model = linear(torch.randn(SHAPE[0], 16, *SHAPE[1:], generator=torch.Generator().manual_seed(1)))
    attack = LogitSpace(Linf(0.2), steps=1)
    first = attacked(attack, model, x, y)
    torch.rand(3)
    assert torch.equal(attacked(attack, model, x, y), first)
    assert not torch.equal(attacked(attack, model, x, y, seed=1), first)


def test_the_classifier_is_left_as_it_was() -> None:
    model = linear(torch.ones(SHAPE[0], 4, *SHAPE[1:]))
    x = images(2)
    expected = model(x)
    found = attacked(LogitSpace(Linf(0.2), 4), model, x, torch.tensor([0, 1]))
    assert not found.requires_grad
    assert torch.equal(model(x), expected)
    assert all(p.grad is None for p in model.parameters())
