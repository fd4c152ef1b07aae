"""Rows of copies: parts that see each image several times have the mean gradient of the copies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.gradients.bpda import bpda
from unmask.gradients.parts.skip_to import skip_to
from unmask.gradients.parts.submodule_output import submodule_output
from unmask.gradients.rows import averaged_copies, copies_of, match_rows
from unmask.gradients.surrogates.finite_differences import finite_differences
from unmask.gradients.surrogates.fit_surrogate import fit_surrogate
from unmask.randomness import make_keys, use_keys

X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
COPIES = 4

ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "beside": lambda x: x.repeat_interleave(COPIES, 0),
    "behind": lambda x: x.repeat(COPIES, 1, 1, 1),
}
MEANS: dict[str, Callable[[Tensor], Tensor]] = {
    "beside": lambda z: z.view(-1, COPIES, 2).mean(1),
    "behind": lambda z: z.view(COPIES, -1, 2).mean(0),
}


class Copies(nn.Module):
    """Rounds copies of each image outside of torch."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy((ORDERS[self.order](x).detach().numpy() * 32).round() / 32)


class Averaged(nn.Module):
    """Images (B, 1, 4, 4) -> (B, 2): the mean over copies of linear logits, as a label where ``hard``."""

    def __init__(self, order: str, *, hard: bool = False) -> None:
        super().__init__()
        self.copies, self.order, self.hard = Copies(order), order, hard
        linear = nn.Linear(16, 2, bias=False)
        linear.weight.data.copy_(WEIGHT)
        self.net = nn.Sequential(nn.Flatten(), linear)

    def forward(self, x: Tensor) -> Tensor:
        mean = MEANS[self.order](self.net(self.copies(x)))
        return nn.functional.one_hot(mean.argmax(1), 2).float() if self.hard else mean


def slope(model: nn.Module) -> Tensor:
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    return gradient.flatten(1)


@pytest.mark.parametrize("order", ORDERS)
def test_copies_are_found_in_either_order(order: str) -> None:
    noisy = ORDERS[order](X) + 0.01 * torch.rand(12, 1, 4, 4)
    own = copies_of(noisy, 3)
    assert all(torch.allclose(noisy[own[i]], X[i].expand(COPIES, 1, 4, 4), atol=0.02) for i in range(3))
    assert torch.equal(match_rows(X, noisy), ORDERS[order](X))
    assert torch.allclose(averaged_copies(ORDERS[order](X), 3), X)


def test_rows_that_are_no_copies_are_refused() -> None:
    with pytest.raises(UnmaskError, match="7 rows are no whole number of copies of 3 images"):
        copies_of(torch.rand(7, 2), 3)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("view", [bpda("copies"), skip_to("net")], ids=["bpda", "skip_to"])
def test_a_view_has_the_gradient_of_the_mean_over_copies(order: str, view: Callable[[nn.Module], nn.Module]) -> None:
    model = Averaged(order)
    assert torch.equal(view(model)(X.clone().requires_grad_()), model(X))
    assert torch.allclose(slope(view(model)), WEIGHT[0].expand(3, 16), atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_finite_differences_add_up_what_all_copies_do(order: str) -> None:
    with use_keys(make_keys(0, range(3), "differences")):
        found = slope(finite_differences("copies", pairs=1000, size=0.1)(Averaged(order)))
    assert torch.nn.functional.cosine_similarity(found, WEIGHT[:1]).min() > 0.9
    assert torch.allclose((found @ WEIGHT[0]) / WEIGHT[0].square().sum(), torch.ones(3), atol=0.15)


@pytest.mark.parametrize("order", ORDERS)
def test_what_a_part_gives_for_copies_is_averaged(order: str) -> None:
    assert torch.allclose(submodule_output("net")(Averaged(order, hard=True))(X), Averaged(order)(X), atol=1e-6)


def test_a_surrogate_of_a_part_that_makes_copies_learns_their_mean() -> None:
    model, many = Averaged("beside"), torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    fitted = fit_surrogate(model, "copies", many, steps=200)
    assert torch.nn.functional.cosine_similarity(slope(bpda("copies", fitted)(model)), WEIGHT[:1]).min() > 0.9
