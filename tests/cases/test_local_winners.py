"""Why the plain attack on local winner-takes-all fails, measured on the weights that ship."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.cases import find_case
from unmask.data import load
from unmask.randomness import make_keys, use_keys
from unmask.types import as_output

N, DRAWS = 16, 32
X, Y = load("digits", n=N).batch()


def gradients(model: nn.Module) -> Tensor:
    """(DRAWS, N, 64) of the cross entropy."""
    found = []
    for draw in range(DRAWS):
        x = X.clone().requires_grad_()
        with use_keys(make_keys(draw, range(N), "test")):
            loss = F.cross_entropy(as_output(model(x)).logits, Y, reduction="sum")
        found.append(torch.autograd.grad(loss, x)[0].flatten(1))
    return torch.stack(found)


def cosine(g: Tensor) -> float:
    """Of the gradients of two draws, on average."""
    total = F.normalize(g, dim=2).sum(0).square().sum(1)
    return float((total - len(g)).mean()) / (len(g) * (len(g) - 1))


def test_gradients_of_two_draws_have_nothing_in_common_but_for_the_view_of_the_adaptive_attack() -> None:
    case = find_case("lwta-digits")
    model = case.load()
    view = case.attacks["bpda"].view
    assert view is not None
    own, adapted = gradients(model), gradients(view(model))
    assert own.abs().sum((0, 2)).min() > 0  # it is there
    assert abs(cosine(own)) < 0.05
    assert cosine(adapted) > 0.25


def test_the_own_gradient_explodes() -> None:
    case = find_case("lwta-digits")
    model = case.load()
    view = case.attacks["bpda"].view
    assert view is not None
    own, adapted = (gradients(m).norm(dim=2) for m in (model, view(model)))
    assert own.max() > 100 * adapted.max()
