"""A trial wires an attack to the judge: what it scores on, what the attack is given, what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask import attacking
from unmask.attacking import AttackResult, run_attack
from unmask.attacks.aliases import fgsm, pgd
from unmask.attacks.problem import Problem
from unmask.judging import Judge, Verdict
from unmask.losses import margin
from unmask.randomness import make_keys, uniform
from unmask.records import GradientCounts
from unmask.statistics import Accuracy, Difference, PairedTest, StopRule
from unmask.threats import L1, L2, Linf
from unmask.types import InvalidModelOutput, as_output

ZEROS = torch.zeros(64, dtype=torch.long)
GREY = torch.full((64, 1, 2, 2), 0.5)


class Coin(nn.Module):
    """Class 0 with probability ``p``, whatever the image; keeps each number that it draws."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.drawn = p, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        draw = uniform((len(x), 1), x.double())
        self.drawn.append(draw.flatten())
        heads = (draw < self.p).to(x.dtype)
        return torch.cat([heads, 1 - heads], 1) + 0 * x.flatten(1).sum(1, keepdim=True)


def test_scoring_selection_and_search_have_no_draw_in_common() -> None:
    coin, searched = Coin(0.5), list[int]()

    def attack(problem: Problem) -> Tensor:
        for step in range(6):
            problem.is_broken(torch.arange(64), GREY, step)
        searched.append(len(coin.drawn))
        return GREY

    run_attack(attack, coin, GREY, ZEROS, Linf(0.1), draws=3)
    (end,) = searched
    search, scoring, selection = (
        set(torch.cat(draws).tolist()) for draws in (coin.drawn[:end], coin.drawn[end : end + 3], coin.drawn[end + 3 :])
    )
    assert len(scoring) == len(selection) == 3 * 64
    assert len(search) >= 6 * 64
    assert not scoring & selection
    assert not scoring & search
    assert not selection & search


@pytest.mark.parametrize(
    ("given", "seed", "index"), [({}, 0, range(64)), ({"seed": 7, "index": range(100, 164)}, 7, range(100, 164))]
)
def test_draws_of_search_screening_scoring_and_selection_follow_from_seed_example_and_these_words(
    given: dict[str, Any], seed: int, index: range
) -> None:
    """Another process, or another version, makes the same draws by them: records can be judged and made again."""
    coin = Coin(0.5)
    judge, rows = Judge(coin, Linf(0.1), draws=2), torch.tensor([5, 3, 60])

    def attack(problem: Problem) -> Tensor:
        assert torch.equal(problem.keys.rows, make_keys(seed, index, "attack").rows)
        for step in (0, 4):
            screen = make_keys(seed, index, "screen").select(rows).fold_in(step)
            expected = judge.is_broken(GREY[rows], GREY[rows], ZEROS[rows], screen)
            assert torch.equal(problem.is_broken(rows, GREY[rows], step), expected)
        return problem.x

    found = run_attack(attack, coin, GREY, ZEROS, judge=judge, **given)
    for verdict, purpose in ((found.verdict, "score"), (found.selection, "select")):
        expected = judge.verdict(GREY, GREY, ZEROS, make_keys(seed, index, purpose))
        assert torch.equal(verdict.predicted, expected.predicted)


@pytest.mark.parametrize("draws", [2, 4])
def test_examples_that_look_broken_in_a_search_or_a_selection_stand_as_often_as_all(draws: int) -> None:
    """Nothing breaks a coin: of examples chosen by their draws the share that stands is that of heads."""
    n, p = 6000, 0.5
    x, y, coin = torch.full((n, 1, 1, 1), 0.5), torch.zeros(n, dtype=torch.long), Coin(p)
    fallen = torch.zeros(n, dtype=torch.bool)

    def attack(problem: Problem) -> Tensor:
        for step in range(3):
            fallen[problem.is_broken(torch.arange(n), problem.x, step)] = True
        return problem.x

    found = run_attack(attack, coin, x, y, Linf(0.1), draws=draws)
    for chosen in (fallen, found.selection.robust_fraction == 0):
        share, count = found.verdict.robust_fraction[chosen].mean().item(), int(chosen.sum())
        assert count > 200
        assert share == pytest.approx(p, abs=4 * (p * (1 - p) / (draws * count)) ** 0.5)


def test_a_deterministic_defense_is_scored_once_and_the_attack_counts_its_own_passes() -> None:
    model, (x, y) = Means(), images()
    judge = Judge(model, Linf(0.1))

    def attack(problem: Problem) -> Tensor:
        z = problem.x.clone().requires_grad_()
        as_output(problem.view(z)).logits.sum().backward()
        assert problem.scores is not None
        problem.scores(problem.x)
        return problem.x

    found = run_attack(attack, model, x, y, judge=judge)
    assert found.selection is found.verdict
    assert (found.passes.forwards, found.passes.backwards) == (2 * 3, 3)
    assert (judge.passes.forwards, judge.passes.backwards) == (2 * 4, 0)  # before and after the attack
    assert (found.trajectory, found.gradients) == (None, None)


class Means(nn.Module):
    """Class 1 where the mean is over one half; its logits are not finite where the first pixel is over 0.9."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        height = self.scale * (x.flatten(1).mean(1) - 0.5)
        height = torch.where(x[:, 0, 0, 0] > 0.9, torch.inf, height)
        return torch.stack((-height, height), 1)


def images() -> tuple[Tensor, Tensor]:
    """Four of class 0, the second of which is wrong without an attack."""
    x = torch.tensor([0.4, 0.6, 0.45, 0.49]).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    return x, torch.zeros(4, dtype=torch.long)


def test_what_a_deterministic_defense_gets_wrong_stays_as_it_is_and_no_attack_sees_it() -> None:
    model, (x, y) = Means(), images()
    seen: list[Tensor] = []

    def attack(problem: Problem) -> Tensor:
        seen.append(problem.x)
        assert not problem.random
        return problem.x + 0.05

    found = run_attack(attack, model, x, y, Linf(0.1))
    assert torch.equal(seen[0], x[[0, 2, 3]])
    assert torch.equal(found.x_adv, torch.stack((x[0] + 0.05, x[1], x[2] + 0.05, x[3] + 0.05)))
    assert found.verdict.robust_fraction.tolist() == [1, 0, 1, 0]
    assert found.accuracy.value == 0.5
    run_attack(attack, model, x[1:2], y[1:2], Linf(0.1))
    assert len(seen) == 1, "nothing is left to attack"


def test_of_a_random_defense_every_example_is_attacked() -> None:
    coin, seen = Coin(0.5), list[Tensor]()

    def attack(problem: Problem) -> Tensor:
        seen.append(problem.x)
        assert problem.random
        return problem.x

    run_attack(attack, coin, GREY, ZEROS, Linf(0.1), draws=2)
    assert torch.equal(seen[0], GREY)


def test_examples_without_a_gradient_are_counted_over_all_steps() -> None:
    model, (x, y) = Means(), images()
    x[1] = 0.42

    def attack(problem: Problem) -> Tensor:
        assert problem.on_gradient is not None
        problem.on_gradient(torch.tensor([0, 1]), torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
        problem.on_gradient(torch.tensor([0, 2]), torch.tensor([[0.0, -1.0], [torch.nan, 1.0]]))
        problem.on_gradient(torch.tensor([3]), torch.tensor([[torch.inf, 0.0]]))
        problem.on_gradient(torch.tensor([0, 2]), torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
        return problem.x

    found = run_attack(attack, model, x, y, Linf(0.1))
    assert found.gradients == GradientCounts(4, 2, 2)  # none of the second and fourth, NaN or Inf of the last two
    found = run_attack(attack, model, torch.cat((x[:1] + 0.2, x)), torch.cat((y[:1], y)), Linf(0.1))
    assert found.gradients == GradientCounts(4, 2, 2), "numbers are those of the examples under attack"


@pytest.mark.parametrize("way", ["view", "scores"])
@pytest.mark.parametrize(
    ("pixels", "refused"),
    [
        ((0.95, 0.4), True),
        ((1.0, 0.0), True),  # the edges belong to the box
        ((1.5, 0.4), False),
        ((0.95, -0.1), False),
        ((0.85, 0.4), False),
    ],
)
def test_logits_that_are_not_finite_end_a_search_inside_the_box_only(
    way: str, pixels: tuple[float, float], refused: bool
) -> None:
    model, (x, y) = Means(), images()

    def attack(problem: Problem) -> Tensor:
        z = problem.x.clone()
        z[1, 0, 0] = torch.tensor(pixels)
        z[2, 0, 0, 1] = 7.0  # another image is outside
        answer = as_output(getattr(problem, way)(z)).logits
        assert answer.isfinite().all(1).tolist() == [True, pixels[0] <= 0.9, True]
        return problem.x

    def search() -> None:
        run_attack(attack, model, x, y, Linf(0.1))

    if refused:
        with pytest.raises(InvalidModelOutput, match="NaN or Inf logits under attack"):
            search()
    else:
        search()


@pytest.mark.parametrize(
    ("options", "able", "narrow"),
    [({"low_precision": True}, True, True), ({"low_precision": True}, False, False), ({}, True, False)],
)
def test_only_gradients_are_taken_in_low_precision_where_asked_and_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], able: bool, narrow: bool
) -> None:
    low: list[bool] = []

    class Watched(Means):
        def forward(self, x: Tensor) -> Tensor:
            low.append(torch.is_autocast_enabled(x.device.type))
            return super().forward(x)

    def attack(problem: Problem) -> Tensor:
        low.clear()
        assert problem.scores is not None
        for ask in (problem.view, problem.scores):
            ask(problem.x)
        problem.is_broken(torch.arange(3), problem.x, 1)
        return problem.x

    monkeypatch.setattr(attacking, "multiplies_bfloat16", lambda device: able)
    model, (x, y) = Watched(), images()
    run_attack(attack, model, x, y, Linf(0.05), **options)
    view, *others = low
    assert view == narrow
    assert others == [False] * 3  # scores, the judge's word during the search, and its verdict


def test_a_view_is_made_once_of_a_frozen_copy_and_only_if_it_is_asked() -> None:
    model, (x, y), made = Means(), images(), list[nn.Module]()

    def view(twin: nn.Module) -> nn.Module:
        made.append(twin)
        return twin

    run_attack(lambda problem: problem.x, model, x, y, Linf(0.1), view=view)
    assert made == []

    def attack(problem: Problem) -> Tensor:
        for _ in range(2):
            as_output(problem.view(problem.x))
        return problem.x

    run_attack(attack, model, x, y, Linf(0.1), view=view)
    (twin,) = made
    assert twin is not model
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert model.scale.requires_grad


@pytest.mark.parametrize(
    ("options", "random"),
    [({}, False), ({"draws": 2}, True), ({"uses_torch_random": True}, True)],
    ids=["no", "draws", "foreign"],
)
def test_the_compiler_is_told_the_model_the_view_and_whether_it_draws(options: dict[str, Any], random: bool) -> None:
    told: list[tuple[object, ...]] = []

    class Compiler:
        def of(self, model: nn.Module, key: object, make: Callable[[], Any], *, random: bool) -> Any:
            told.append((model, key, random))
            return make()

    def view(twin: nn.Module) -> nn.Module:
        return twin

    model, (x, y) = Means(), images()
    judge = Judge(model, Linf(0.05), **options)
    run_attack(pgd(1, margin), model, x, y, judge=judge, view=view, compiler=Compiler())  # type: ignore[arg-type]
    assert told == [(model, view, random)]


@pytest.mark.parametrize(
    "kind", [AttackResult, Verdict, Judge, Linf, L2, L1, Accuracy, PairedTest, Difference, StopRule]
)
def test_what_was_found_and_by_which_rules_cannot_be_changed_afterwards(kind: type) -> None:
    with pytest.raises(FrozenInstanceError):
        object.__new__(kind).__setattr__(fields(kind)[0].name, 1.0)


def test_the_first_examples_under_attack_are_followed() -> None:
    model, (x, y) = Means(), images()
    found = run_attack(pgd(1, margin), model, x, y, Linf(0.05), record_trajectories=2)
    assert found.trajectory is not None
    assert found.trajectory.rows == (0, 2)
    assert [len(found.trajectory.of(row)) > 0 for row in (0, 2)] == [True, True]


def test_a_judge_or_a_threat_is_given_and_not_both() -> None:
    model, (x, y) = Means(), images()
    judge = Judge(model, Linf(0.05))
    made = run_attack(pgd(1, margin), model, x, y, judge.threat)
    given = run_attack(pgd(1, margin), model, x, y, judge=judge)
    assert made.accuracy == given.accuracy
    assert judge.passes.forwards > 0
    with pytest.raises(ValueError, match="no threat: give one"):
        run_attack(pgd(1, margin), model, x, y)
    wrong: list[dict[str, Any]] = [{"threat": Linf(0.05)}, {"draws": 2}, {"uses_torch_random": True}]
    for more in wrong:
        with pytest.raises(ValueError, match="a judge has its own threat"):
            run_attack(pgd(1, margin), model, x, y, judge=judge, **more)


def test_what_is_no_attack_model_view_or_threat_is_refused_in_one_line() -> None:
    model, x, y = nn.Flatten().eval(), torch.full((2, 1, 1, 2), 0.5), torch.zeros(2, dtype=torch.long)
    attack: Any = fgsm()
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((attack, model, x, y, 0.1), {}, "the threat is a float: give one such as Linf"),
        ((model, attack, x, y, Linf(0.1)), {}, "the model is a GradientAttack: give an nn.Module"),
        ((x, model, x, y, Linf(0.1)), {}, "the attack is a Tensor: give one such as"),
        ((attack, model, x, y, Linf(0.1)), {"view": "part"}, "the view is a str"),
        ((attack, model, x, y), {"judge": Judge(nn.Flatten(), Linf(0.1))}, "the judge is of another model"),
    ]
    for arguments, options, message in wrong:
        with pytest.raises(ValueError, match=message) as caught:
            run_attack(*arguments, **options)
        assert "\n" not in str(caught.value)
