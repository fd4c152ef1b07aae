from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.gradients.straight_through import straight_through

BANK = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 3


class Neighbours(nn.Module):
    """The share of each class among the nearest of stored examples."""

    def __init__(self, look: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.look = look

    def forward(self, x: Tensor) -> Tensor:
        near = torch.cdist(x, BANK).topk(5, largest=False).indices
        return F.one_hot(self.look(near), 3).float().mean(1)


def by_take(near: Tensor) -> Tensor:
    return LABELS.take(near)


@pytest.mark.parametrize("look", [LABELS.__getitem__, by_take])
@pytest.mark.parametrize("label", range(3))
def test_shares_of_neighbours_rise_where_examples_of_that_class_are_near(
    label: int, look: Callable[[Tensor], Tensor]
) -> None:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    shares = straight_through(Neighbours(look))(x)
    assert torch.equal(shares, Neighbours(look)(x))
    (slope,) = torch.autograd.grad(shares[:, label].sum(), x)
    distance = torch.cdist(x, BANK)
    soft = (-distance / distance.detach().std(1, keepdim=True)).softmax(1) @ F.one_hot(LABELS, 3).float()
    (wanted,) = torch.autograd.grad(soft[:, label].sum(), x)
    torch.testing.assert_close(slope, wanted)
