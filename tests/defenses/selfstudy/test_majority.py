from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from unmask.defenses.selfstudy.majority import Majority, MajorityVote


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
