"""Gradients next to points where a function has none, against closed forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unmask.diagnosis.nonfinite import nonfinite
from unmask.gradients.finite_gradients import finite_gradients
from unmask.models.model_wrappers import frozen_copy
from unmask.randomness import make_keys, use_keys
from unmask.types import Output

KEYS = make_keys(0, range(3), "finite")


class Head(nn.Module):
    """A linear classifier behind ``before``."""

    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.weight = before, nn.Parameter(torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 1.0, 0.0, -1.0]]))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.before(x).flatten(1) @ self.weight.T


def slope(model: nn.Module, x: Tensor) -> Tensor:
    z = x.clone().requires_grad_()
    with use_keys(KEYS):
        (found,) = torch.autograd.grad(model(z)[:, 0].sum(), z)
    return found.flatten(1)


X = torch.tensor([[0.0, 0.5, 1.0, 0.0], [0.25, 0.0, 0.0, 0.5], [0.1, 0.2, 0.3, 0.4]]).view(3, 1, 2, 2)

SINGULAR: dict[str, Callable[[Tensor], Tensor]] = {  # each computes x
    "root of 0": lambda x: x.sqrt().square(),
    "untaken branch": lambda x: torch.where(x > 2, (x - 2).sqrt(), x),  # NaN at every x in the box
}


@pytest.mark.parametrize("name", SINGULAR)
def test_the_gradient_next_to_a_singular_point(name: str) -> None:
    model = Head(SINGULAR[name])
    assert not slope(model, X).isfinite().all()
    found = slope(finite_gradients(model), X)
    assert (found.abs() - model.weight[0].abs()).abs().max() < 1e-3  # reflected where noise leaves the box


def test_the_forward_pass_stays_the_models_own_with_its_draws_and_refusals() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Output:
            logits = (x + torch.randn(x.shape)).flatten(1)
            return Output(logits, logits[:, 0])

    z = X.clone().requires_grad_()
    with use_keys(KEYS, uses_torch_random=True):
        own = Noisy()(X)
    with use_keys(KEYS, uses_torch_random=True):
        seen = finite_gradients(Noisy())(z)
    assert torch.equal(own.logits, seen.logits)
    assert torch.equal(own.reject, seen.reject)
    assert seen.reject.requires_grad


def test_where_a_gradient_becomes_nan_is_found() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blur, self.root = nn.Conv2d(1, 1, 1, bias=False), Root()
            self.blur.weight.data.fill_(1.0)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.root(self.blur(x)).flatten(1)
            return answer

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sqrt().square()

    found = nonfinite(frozen_copy(Parts().eval()), X, torch.zeros(3).long(), KEYS)
    assert found.share == pytest.approx(2 / 3)  # the last image has no black pixel
    assert found.event is not None
    assert (found.event.name, found.event.part) == ("sqrt", "root")
    assert "return x.sqrt().square()" in found.event.place
    sound = nonfinite(frozen_copy(Head(lambda x: x.square()).eval()), X, torch.zeros(3).long(), KEYS)
    assert (sound.share, sound.event) == (0.0, None)
