from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from unmask.defenses.post2018.inputs.score_purification import Adaptive, ScorePurification, ScorePurify
from unmask.gradients.autograd import autograd
from unmask.nets import UNet
from unmask.randomness import make_keys, use_keys

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
GREY = torch.full((200, 1, 10, 10), 0.5)
VARIANCE = 0.01


def towards_grey(x: Tensor) -> Tensor:
    """The score of images whose elements are independent and normal, of mean 1/2 and variance 0.01."""
    return (0.5 - x) / VARIANCE


def keys(rows: range = range(6)) -> AbstractContextManager[None]:
    return use_keys(make_keys(0, rows, "draws"))


def rows_of(value: float) -> Tensor:
    return torch.full((len(X),), value)


def test_the_adaptive_size_is_a_share_of_the_variance_of_normal_images() -> None:
    size = Adaptive(share=0.3)(towards_grey, X, towards_grey(X))
    assert torch.allclose(size, rows_of(0.3 * VARIANCE), rtol=1e-3)


def test_the_adaptive_size_divides_by_the_curvature_along_the_score() -> None:
    variance = torch.linspace(0.01, 0.09, 192).view(3, 8, 8)

    def score(x: Tensor) -> Tensor:
        return (0.5 - x) / variance

    s = score(X)
    share = s.square().flatten(1).sum(1) / (s.square() / variance).flatten(1).sum(1)
    assert torch.allclose(Adaptive(share=0.3)(score, X, s), 0.3 * share, rtol=1e-3)


@pytest.mark.parametrize(
    ("score", "size"),
    [
        (torch.ones_like, 0.1),  # a constant score never falls to 0
        (lambda x: x, 0.0),  # one that grows is not followed
        (lambda x: -20000 * x, 0.0),  # it falls so soon that the step is too short
    ],
)
def test_the_adaptive_size_has_bounds(score: Callable[[Tensor], Tensor], size: float) -> None:
    assert torch.equal(Adaptive(probe=1e-6)(score, X, score(X)), rows_of(size))


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_normal_images_come_nearer_to_their_mean_by_the_same_factor_in_each_step(steps: int) -> None:
    purify = ScorePurify(towards_grey, steps, start=0.0, size=Adaptive(share=0.2))
    assert torch.allclose(purify(X), 0.5 + 0.8**steps * (X - 0.5), atol=1e-3)


def test_the_noise_is_added_once_and_shrinks_with_the_image() -> None:
    torch.manual_seed(0)
    purified = ScorePurify(towards_grey, 3, start=0.08, size=Adaptive(share=0.2))(GREY)
    assert float(purified.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(purified.std()) == pytest.approx(0.08 * 0.8**3, rel=0.03)


def test_langevin_dynamics_have_the_variance_of_an_autoregression() -> None:
    torch.manual_seed(0)
    size, steps = 0.2 * VARIANCE, 6
    purified = ScorePurify(towards_grey, steps, start=0.0, size=size, heat=1.0)(GREY)
    expected = 2 * size * sum(0.8 ** (2 * i) for i in range(steps))
    assert float(purified.var()) == pytest.approx(expected, rel=0.05)
    assert float(purified.mean()) == pytest.approx(0.5, abs=1e-3)


def test_images_stay_in_their_range() -> None:
    torch.manual_seed(0)
    purified = ScorePurify(torch.ones_like, 2, start=1.0, size=0.3, heat=1.0)(X)
    assert purified.min() >= 0
    assert purified.max() == 1


def test_each_image_has_its_own_draws_whatever_the_batch() -> None:
    purify = ScorePurify(towards_grey, 3, heat=1.0)
    with keys():
        whole = purify(X)
    with keys(range(4, 6)):
        part = purify(X[4:])
    assert torch.equal(whole[4:], part)
    assert not torch.equal(whole, purify(X))


def test_the_gradient_is_that_of_all_steps() -> None:
    purify = ScorePurify(towards_grey, 4, start=0.01, size=Adaptive(share=0.2))
    inside = 0.1 + 0.8 * X
    with keys():
        _, slope = autograd(lambda z, rows=None: purify(z).flatten(1).sum(1), inside)
    assert torch.allclose(slope, torch.full_like(X, 0.8**4), atol=0.02)


def test_the_gradient_includes_that_of_the_adaptive_size() -> None:
    def score(x: Tensor) -> Tensor:
        return (0.5 - x) * (1 + x.square()) * 10

    inside = (0.2 + 0.6 * X[:1, :, :2, :2]).double().requires_grad_()
    purify = ScorePurify(score, 2, start=0.0, size=Adaptive(share=0.2, most=1.0))
    assert torch.autograd.gradcheck(purify, (inside,))

    def constant(scores: Callable[[Tensor], Tensor], x: Tensor, s: Tensor) -> Tensor:
        return Adaptive(share=0.2, most=1.0)(scores, x, s).detach()

    fixed = ScorePurify(score, 2, start=0.0, size=constant)
    whole, part = (torch.autograd.grad(module(inside).sum(), inside)[0] for module in (purify, fixed))
    assert not torch.allclose(whole, part, rtol=1e-3)


def test_the_memory_of_a_gradient_does_not_grow_with_the_steps() -> None:
    held: dict[int, int] = {}
    for steps in (2, 8):
        seen: list[int] = []

        def keep(tensor: Tensor, seen: list[int] = seen) -> Tensor:
            seen.append(tensor.numel())
            return tensor

        purify = ScorePurify(UNet(widths=(8, 16), embedding=0), steps)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            purify(X.clone().requires_grad_())
        held[steps] = sum(seen)
    assert held[8] - held[2] <= 6 * X.numel()  # what a step starts from
    assert held[8] <= 10 * X.numel()


def test_the_logits_are_the_mean_over_runs() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    purify = ScorePurify(towards_grey, 2)
    with keys():
        logits = ScorePurification(net, purify, runs=3)(X)
    with keys():
        single = net(purify(X.repeat(3, 1, 1, 1))).view(3, 6, 4)
    assert torch.allclose(logits, single.mean(0), atol=1e-6)
    assert float(single.detach().var(0).mean()) > 1e-4  # each run has noise of its own


@pytest.mark.parametrize(("steps", "start", "heat"), [(0, 0.1, 0.0), (1, -0.1, 0.0), (1, 0.1, -1.0)])
def test_impossible_settings_are_refused(steps: int, start: float, heat: float) -> None:
    with pytest.raises(ValueError, match="purification needs steps"):
        ScorePurify(towards_grey, steps, start, heat=heat)


def test_no_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="purification needs runs"):
        ScorePurification(nn.Flatten(), ScorePurify(towards_grey), runs=0)
