"""A detector that compares classes in numpy: of two networks, or of one network on two forms of an image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.errors import UnmaskError
from unmask.gradients.bpda import View
from unmask.gradients.parts.agreement import agreement
from unmask.judging import Judge
from unmask.losses import targeted_margin
from unmask.threats import Linf
from unmask.types import Output


class Reads(nn.Module):
    """Three classes: the first leads where images are dark, the second by one pixel, the third by the mean of some."""

    def __init__(self, slope: float, seen: slice) -> None:
        super().__init__()
        self.slope, self.seen = slope, seen

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(1)
        leads = [self.slope * pixels[:, 0] - 0.2, pixels[:, self.seen].mean(1) - 0.2]
        return torch.stack([torch.zeros(len(x)), *leads], 1)


class Pair(nn.Module):
    """One network comes to class 1 first, the other to class 2 alone: in a ball of 0.3 they agree on class 2."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Reads(3.0, slice(1, 2)), Reads(0.1, slice(2, 12))

    def forward(self, x: Tensor) -> Output:
        one, other = self.one(x), self.other(x)
        disagree = one.detach().numpy().argmax(1) != other.detach().numpy().argmax(1)
        return Output(one, torch.from_numpy(disagree))


X = torch.zeros(8, 1, 3, 4)
LABELS = torch.zeros(8, dtype=torch.int64)


def left(view: View | None) -> float:
    model = Pair().eval()
    judge = Judge(model, Linf(0.3), 1, False)
    search = APGD(30, targeted_margin, targets=2)
    found = run_attack(search, model, X, LABELS, judge=judge, view=view, index=torch.arange(8), seed=0)
    return float(found.verdict.robust_fraction.double().mean())


def test_a_search_finds_the_class_that_both_networks_come_to() -> None:
    assert left(None) == 1.0
    assert left(agreement(["one", "other"])) == 0.0


def test_a_class_leads_by_the_least_of_its_leads_and_an_image_without_one_is_refused() -> None:
    x = torch.zeros(2, 12)
    x[0, 1:], x[1, 0] = 0.3, 0.3
    answer = agreement(["one", "other"])(Pair())(x.view(2, 1, 3, 4))
    assert answer.logits.allclose(torch.tensor([[-0.1, -0.3, 0.1], [-0.7, -0.17, -0.9]]), atol=1e-6)
    assert answer.reject is not None
    assert answer.reject.allclose(torch.tensor([-0.1, 0.17]), atol=1e-6)


def test_calls_without_logits_of_one_form_are_refused() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.few = nn.Flatten(), nn.Flatten()

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.flat(x).mean(1, keepdim=True) + self.few(x[..., :2])
            return made

    with pytest.raises(UnmaskError, match="no logits of one form"):
        agreement(["flat", "few"])(Mixed())(X)
    with pytest.raises(UnmaskError, match="no part 'other'"):
        agreement("other")(Mixed())
