from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import nn

from unmask.cases.selfstudy.binary import each_class, joint_margins
from unmask.defenses.selfstudy.binary import BinaryEnsemble, Merge

YES, NO = (0.0, 50.0), (50.0, 0.0)


def test_exactly_one_yes_is_accepted() -> None:
    for answers in product((YES, NO), repeat=4):
        scores, refused = Merge()(torch.tensor([[*answers, *[NO] * 6]]))
        yes = [i for i, answer in enumerate(answers) if answer == YES]
        assert bool(refused) == (len(yes) != 1)
        assert (scores[0, yes] == 5).all()


def test_the_certainty_is_the_softmax_of_five_times_the_sigmoid_of_five_times_the_difference() -> None:
    d = 0.3
    certain = math.exp(5 / (1 + math.exp(-5 * d)))
    certain /= certain + 9
    logits = torch.tensor([[(0.0, d), *[NO] * 9]])
    assert not Merge(certain - 1e-4)(logits).reject
    assert Merge(certain + 1e-4)(logits).reject


def test_what_the_margins_accept_the_ensemble_accepts_and_the_class_is_the_same() -> None:
    """The worst that the margins accept: one yes by 0.3, and nine times no by as much."""
    for least, accepted in ((0.3, True), (0.29, False)):
        logits = torch.zeros(10, 10, 2)
        logits[..., 0] = least
        logits[range(10), range(10)] = torch.tensor([0.0, least])
        yes, margin = joint_margins(logits)
        scores, refused = Merge()(logits)
        assert margin is not None
        assert refused is not None
        assert ((margin <= 1e-6) == accepted).all()
        assert not (refused & accepted).any()
        assert yes.argmax(1).tolist() == scores.argmax(1).tolist() == list(range(10))


def test_confident_members_leave_no_gradient() -> None:
    torch.manual_seed(0)
    model = BinaryEnsemble([nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(3)])
    for member in model.members:
        member[1].weight.data *= 100  # type: ignore[index]
    x = torch.rand(5, 1, 2, 2, requires_grad=True)
    scores, _ = model(x)
    (through,) = torch.autograd.grad(scores.sum(), x)
    (logits,) = torch.autograd.grad((model.logits(x)[..., 1] - model.logits(x)[..., 0]).sum(), x)
    assert through.abs().sum() < 1e-3 * logits.abs().sum()


def test_members_learn_their_own_class_against_all_others() -> None:
    """One image of class 1; the loss is the sum of what each member loses on its own question."""
    model = BinaryEnsemble([nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(3)])
    for member, difference in zip(model.members, (0.5, 1.0, -2.0), strict=True):
        nn.init.zeros_(member[1].weight)  # type: ignore[index]
        member[1].bias.data = torch.tensor([0.0, difference])  # type: ignore[index]
    loss, scores = each_class(model, torch.rand(1, 1, 2, 2), torch.tensor([1]), 0.0)
    expected = math.log1p(math.exp(0.5)) + math.log1p(math.exp(-1.0)) + math.log1p(math.exp(-2.0))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert scores.tolist() == [[0.5, 1.0, -2.0]]
