from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unmask.attacks.problem import BestTracker, Problem, value_only
from unmask.gradients.autograd import autograd
from unmask.losses import margin, targeted_margin
from unmask.randomness import make_keys
from unmask.threats import Linf
from unmask.types import Output


def problem(broken: object = None, n: int = 4) -> Problem:
    """One pixel an image; the logits are (0, x - 1/2); nobody is ever broken unless ``broken`` says so."""

    def view(x: Tensor) -> Tensor:
        return torch.stack((torch.zeros(len(x)), x.flatten() - 0.5), 1)

    x, y = torch.linspace(0, 0.3, n).view(n, 1, 1, 1), torch.zeros(n, dtype=torch.long)
    keys = make_keys(0, torch.arange(n), "test")
    never = lambda rows, x_adv, when: torch.zeros(len(rows), dtype=torch.bool)  # noqa: E731
    return Problem(view, x, y, Linf(0.4), keys, broken or never)  # type: ignore[arg-type]


def image(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_the_best_value_wins_whatever_the_order() -> None:
    tracker = BestTracker(problem(), margin)
    rows = torch.arange(4)
    tracker.update(rows, image(0.1, 0.2, 0.3, 0.4), torch.tensor([-4.0, -1.0, -3.0, float("nan")]))
    tracker.update(rows[1:], image(0.5, 0.6, 0.7), torch.tensor([-2.0, -2.0, float("-inf")]))
    assert tracker.best.flatten().tolist() == pytest.approx([0.1, 0.2, 0.6, 0.3])  # the last: never a number
    assert tracker.value.tolist() == [-4, -1, -2, float("-inf")]


def test_who_leaves_and_with_which_candidate() -> None:
    """The judge breaks images above 0.45; a broken candidate is kept though its value is lower."""
    tracker = BestTracker(problem(lambda rows, x_adv, when: x_adv.flatten() > 0.45), margin)
    rows = torch.arange(4)
    assert tracker.update(rows, image(0.1, 0.2, 0.3, 0.4), torch.tensor([9.0, 9.0, 9.0, 9.0])) is None
    keep = tracker.update(rows, image(0.5, 0.4, 0.5, 0.1), torch.tensor([1.0, 1.0, 10.0, 1.0]))
    assert keep is not None
    assert keep.tolist() == [False, True, False, True]
    assert tracker.active_rows().tolist() == [1, 3]
    assert tracker.best.flatten().tolist() == pytest.approx([0.5, 0.2, 0.5, 0.4])


def test_the_luckiest_of_noisy_values_does_not_win() -> None:
    """Fresh values: the image's brightness. Example 0's best was luck, 1's was not, 2's last is not a number."""
    tracker = BestTracker(replace(problem(), random=True), margin)
    rows = torch.arange(1, 4)
    tracker.update(rows, image(0.1, 0.3, 0.3), torch.tensor([9.0, 9.0, 9.0]))
    fresh = lambda images: images.flatten().where(images.flatten() < 0.35, torch.nan)  # noqa: E731
    tracker.reselect_on_fresh_draws(rows, image(0.2, 0.2, 0.4), fresh)
    assert tracker.best.flatten().tolist() == pytest.approx([0.0, 0.2, 0.3, 0.3])
    assert tracker.value.tolist() == pytest.approx([float("-inf"), 0.2, 0.3, 0.3])
    tracker.update(rows, image(0.1, 0.1, 0.32), torch.tensor([9.0, 9.0, 9.0]))  # another search, lucky again
    tracker.reselect_on_fresh_draws(rows, image(0.15, 0.34, 0.1), fresh)
    assert tracker.best.flatten().tolist() == pytest.approx([0.0, 0.2, 0.34, 0.32])


def test_a_random_defense_is_judged_at_every_fourth_step_and_the_last() -> None:
    whole = problem()
    assert all(whole.should_query_judge(step, 9) for step in range(10))
    assert [step for step in range(10) if replace(whole, random=True).should_query_judge(step, 9)] == [0, 4, 8, 9]
    assert replace(whole, random=True).subset(torch.tensor([1])).random


def test_the_judge_is_asked_about_possible_successes_only() -> None:
    asked: list[list[int]] = []

    def broken(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
        asked.append(rows.tolist())
        return torch.zeros(len(rows), dtype=torch.bool)

    values = torch.tensor([-1e-3, 0.0, 1e-3, float("nan")])  # 0 is a tie, which the order of classes decides
    rows, x_adv = torch.arange(4), image(0.1, 0.2, 0.3, 0.4)
    BestTracker(problem(broken), margin).update(rows, x_adv, values)
    BestTracker(problem(broken), margin, bounded=False).update(rows, x_adv, values)
    BestTracker(problem(broken), targeted_margin).update(rows, x_adv, values)
    BestTracker(problem(broken), margin, early_stop=False).update(rows, x_adv, values)
    assert asked == [[1, 2], [0, 1, 2], [0, 1, 2]]


def test_an_example_that_stands_is_asked_about_less_and_less_often() -> None:
    """Example 1 looks broken from the 11th offer on; the judge finds it so at the first question after the 30th."""
    asked = list[tuple[int, list[int]]]()

    def broken(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
        asked.append((when, rows.tolist()))
        return (rows == 1) & (when > 30)

    tracker = BestTracker(problem(broken, n=2), margin, patience=7)
    for offer in range(1, 41):
        rows = tracker.active_rows()
        tracker.update(rows, image(*[0.1] * len(rows)), torch.tensor([1.0, 1.0 if offer > 10 else -1.0])[: len(rows)])
    assert [when for when, rows in asked if 0 in rows] == [1, 2, 4, 8, 16, 24, 32, 40]
    assert [when for when, rows in asked if 1 in rows] == [11, 12, 14, 18, 26, 34]
    assert tracker.active_rows().tolist() == [0]


def test_a_subset_is_the_same_question() -> None:
    whole = problem(lambda rows, x_adv, when: rows == 2)
    some = torch.tensor([3, 2])
    part = whole.subset(some)
    assert torch.equal(part.x, whole.x[some])
    assert torch.equal(part.keys.rows, whole.keys.rows[some])
    assert part.is_broken(torch.tensor([0, 1]), part.x, 1).tolist() == [False, True]
    assert part.subset(torch.tensor([1])).is_broken(torch.tensor([0]), part.x[1:], 1).tolist() == [True]


def test_whose_scores_an_attack_without_gradients_sees() -> None:
    def defense(x: Tensor) -> Tensor:
        return x.flatten(1)

    def source(x: Tensor) -> Tensor:
        return -x.flatten(1)

    whole = problem()
    assert whole.black_box() is whole
    whole = replace(whole, scores=defense)
    assert whole.black_box().view is defense
    assert whole.subset(torch.tensor([1])).black_box().view is defense
    assert whole.with_view(source).black_box().view is source


def test_goal_knows_whose_row_is_whose() -> None:
    """Copies of examples, and labels of another form, reach the loss with the right rows."""
    whole = problem()
    labels = torch.tensor([[0, 10], [1, 11], [2, 12], [3, 13]])

    def loss(output: Output, wanted: Tensor) -> Tensor:
        return output.logits[:, 1] + 100 * wanted[:, 0] + 1000 * wanted[:, 1]

    objective = whole.objective(loss, torch.tensor([1, 3]), labels)
    assert objective(image(0.5, 0.5)).tolist() == [11100, 13300]
    assert objective(image(0.5, 1.5, 0.5), torch.tensor([1, 0, 0])).tolist() == [13300, 11101, 11100]


def test_value_only_takes_no_backward_pass() -> None:
    objective = problem().objective(margin, torch.arange(4))
    values, direction = autograd(value_only(objective), image(0.1, 0.2, 0.3, 0.4))
    assert values.tolist() == pytest.approx([-0.4, -0.3, -0.2, -0.1])
    assert not direction.any()
