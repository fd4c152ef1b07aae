from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask.attacks.black_box.hop_skip_jump import HopSkipJump
from unmask.threats import L1, L2, Linf, Threat
from unmask.types import Output

N, SHAPE = 6, (1, 6, 6)
Y = torch.zeros(N, dtype=torch.long)
WEIGHT = torch.randn(36, generator=torch.Generator().manual_seed(1))
HEIGHT = -0.5  # of every image: on the side of class 0, and as far from the plane as every other


def images() -> Tensor:
    x = 0.4 + 0.2 * torch.rand(N, 36, generator=torch.Generator().manual_seed(0))
    x -= (x @ WEIGHT - 18 * WEIGHT.mean() - HEIGHT)[:, None] * WEIGHT / WEIGHT.square().sum()
    return x.view(N, *SHAPE)


X = images()


def linear(x: Tensor) -> Tensor:
    height = x.flatten(1) @ WEIGHT - 18 * WEIGHT.mean()
    return torch.stack((-height, height), 1)


def least(dual: float) -> float:
    """The distance of the images from the plane, in closed form."""
    return float(-HEIGHT / WEIGHT.norm(p=dual))


@pytest.mark.parametrize(("threat", "dual"), [(Linf, 1.0), (L2, 2.0)])
def test_it_finds_the_nearest_point_of_a_plane(
    trial: Callable[..., Any], threat: Callable[[float], Threat], dual: float
) -> None:
    for share, broken in ((1.06, True), (0.99, False)):
        one = trial(linear, X, Y, threat(share * least(dual)))
        assert (one.broken(HopSkipJump(queries=6000)(one.problem)) == broken).all()


@pytest.mark.parametrize("queries", [1, 60, 500])
def test_it_asks_no_more_than_it_may(trial: Callable[..., Any], queries: int) -> None:
    for i in range(N):
        one = trial(linear, X[i : i + 1], Y[:1], Linf(0.01), answer=False)
        HopSkipJump(queries)(one.problem)
        assert 0 < one.passes.forwards <= queries
        assert one.passes.backwards == 0


def test_results_do_not_depend_on_the_batch(trial: Callable[..., Any]) -> None:
    attack = HopSkipJump(queries=600)
    whole = attack(trial(linear, X, Y, L2(0.3)).problem)
    for index in (torch.tensor([4]), torch.tensor([2, 0, 5])):
        part = attack(trial(linear, X[index], Y[index], L2(0.3), index=index).problem)
        assert torch.equal(part, whole[index])


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.4)])
def test_candidates_lie_in_ball_and_box(trial: Callable[..., Any], threat: Threat) -> None:
    one = trial(linear, X, Y, threat, answer=False)
    x_adv = HopSkipJump(queries=300)(one.problem)
    assert (x_adv != X).flatten(1).any(1).all()
    for rows, candidates, _ in [*one.asked, (torch.arange(N), x_adv, None)]:
        assert (threat.distance(candidates, X[rows]) <= threat.eps * (1 + 1e-5)).all()
        assert candidates.min() >= 0
        assert candidates.max() <= 1


def test_steps_do_not_hide_a_model_from_labels(trial: Callable[..., Any]) -> None:
    def steps(x: Tensor) -> Tensor:
        return linear((x * 400).round() / 400)

    assert torch.autograd.functional.jacobian(lambda x: steps(x).sum(0), X).abs().max() == 0
    one = trial(steps, X, Y, Linf(1.5 * least(1.0)))
    assert one.broken(HopSkipJump(queries=4000)(one.problem)).all()


def test_larger_probes_see_over_coarser_steps(trial: Callable[..., Any]) -> None:
    def steps(x: Tensor) -> Tensor:
        return linear((x * 20).round() / 20)

    one = trial(steps, X, Y, Linf(1.5 * least(1.0)))
    small, large = (one.broken(HopSkipJump(queries=4000, size=size)(one.problem)) for size in (0.05, 1.0))
    assert large.all()
    assert not small.all()


def test_a_refused_image_is_not_of_another_class(trial: Callable[..., Any]) -> None:
    def refusing(x: Tensor) -> Output:
        return Output(linear(x), torch.ones(len(x)))

    one = trial(refusing, X, Y, Linf(0.5))
    assert torch.equal(HopSkipJump(queries=200)(one.problem), X)


def test_where_there_is_no_other_class_the_image_stays(trial: Callable[..., Any]) -> None:
    def certain(x: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)

    one = trial(certain, X, Y, Linf(0.5))
    assert torch.equal(HopSkipJump(queries=500, tries=20)(one.problem), X)
    assert one.passes.forwards == 20 * N


def test_it_refuses_what_it_cannot_do(trial: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="knows no l1 ball"):
        HopSkipJump()(trial(linear, X, Y, L1(1.0)).problem)
    with pytest.raises(ValueError, match="settings of 1 at least"):
        HopSkipJump(queries=0)
    with pytest.raises(ValueError, match="a size above 0"):
        HopSkipJump(size=0.0)
