from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.gradients.straight_through import straight_through

X = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))


class Hooked(nn.Module):
    """Its first layer's gradients are hooked, and those of what comes of it."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.first, self.factor = nn.Linear(4, 4), factor
        self.first.register_full_backward_hook(self.change)
        self.first.register_full_backward_pre_hook(self.change)

    def change(self, part: nn.Module, *gradients: Any) -> Any:
        return tuple(self.factor * gradient for gradient in gradients[0])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x)
        if y.requires_grad:
            y.register_hook(lambda g: self.factor * g)
        return y


def slope(model: nn.Module) -> Tensor:
    x = X.clone().requires_grad_()
    return torch.autograd.grad(model(x).sum(), x)[0]


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_hooks_do_not_change_gradients_through_the_view_and_stay_where_they_are(factor: float) -> None:
    model = Hooked(factor)
    true = model.first.weight.sum(0).expand(3, 4)
    before = slope(model)
    torch.testing.assert_close(before, factor**3 * true)
    torch.testing.assert_close(slope(straight_through(model)), true)
    torch.testing.assert_close(slope(model), before)


def test_hooks_work_for_gradients_that_the_model_itself_takes() -> None:
    class Saliency(Hooked):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                z = x.detach().clone().requires_grad_()
                (own,) = torch.autograd.grad(super().forward(z).sum(), z)
            return x + own

    model = Saliency(2.0)
    x = X.clone().requires_grad_()
    torch.testing.assert_close(straight_through(model)(x), X + 8 * model.first.weight.sum(0))
