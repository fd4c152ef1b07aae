from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import nn

from unmask.cases.selfstudy.votes import joint_margins
from unmask.defenses.selfstudy.binary import BinaryEnsemble, Merge
from unmask.defenses.selfstudy.majority import Majority, MajorityVote

YES, NO = (0.0, 50.0), (50.0, 0.0)


def test_two_of_three_decide_and_three_different_answers_are_refused() -> None:
    for answers in product(range(4), repeat=3):
        votes, refused = Majority()(torch.stack([torch.eye(4)[a] for a in answers])[None])
        assert bool(refused) == (len(set(answers)) == 3)
        if not refused:
            assert votes.argmax(1).item() == max(answers, key=answers.count)


def test_a_majority_needs_two_members() -> None:
    with pytest.raises(ValueError, match="at least two members"):
        MajorityVote([nn.Flatten()])


def test_the_answer_of_a_majority_has_no_gradient_and_its_logits_have_one() -> None:
    torch.manual_seed(0)
    model = MajorityVote([nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(3)])
    x = torch.rand(5, 1, 2, 2, requires_grad=True)
    votes, refused = model(x)
    assert not votes.requires_grad
    assert refused is not None
    assert refused.dtype == torch.bool
    assert model.logits(x).requires_grad


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
    logits = 2 * torch.randn(2000, 10, 2, generator=torch.Generator().manual_seed(0)) - torch.tensor([-1.0, 1.0])
    scores, refused = Merge()(logits)
    yes, margin = joint_margins(logits)
    assert margin is not None
    assert refused is not None
    accepted = margin <= 0
    assert 50 < accepted.sum() < 1950
    assert not refused[accepted].any()
    assert torch.equal(scores[accepted].argmax(1), yes[accepted].argmax(1))


def test_confident_members_leave_no_gradient() -> None:
    model = BinaryEnsemble([nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(3)])
    for member in model.members:
        member[1].weight.data *= 100  # type: ignore[index]
    x = torch.rand(5, 1, 2, 2, requires_grad=True)
    scores, _ = model(x)
    (through,) = torch.autograd.grad(scores.sum(), x)
    (logits,) = torch.autograd.grad((model.logits(x)[..., 1] - model.logits(x)[..., 0]).sum(), x)
    assert through.abs().sum() < 1e-3 * logits.abs().sum()
