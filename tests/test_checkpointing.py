from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unmask.diagnosis.trace import trace
from unmask.gradients.autograd import autograd
from unmask.gradients.bpda import bpda
from unmask.gradients.straight_through import straight_through
from unmask.models.checkpointing import recomputed
from unmask.models.model_wrappers import batch_invariant, query
from unmask.randomness import make_keys, normal, use_keys

X = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))


class Scaled(nn.Module):
    """Each step multiplies an image by a random factor, so that the gradient of the sum is their product."""

    def __init__(self, draw: Callable[[Tensor], Tensor], **how: Any) -> None:
        super().__init__()
        self.draw, self.how = draw, how
        self.part = nn.ReLU()

    def step(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.part(x * (1 + self.draw(x).abs()))
        return scaled

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = checkpoint(self.step, x, **self.how) if self.how else self.step(x)
        return x.flatten(1)


DRAWS = {
    "torch": torch.rand_like,
    "unmask": lambda x: normal(x.shape, x),
    "dropout": lambda x: nn.functional.dropout(torch.ones_like(x)),
    "poisson": lambda x: torch.poisson(torch.ones_like(x)),
    "numpy": lambda x: torch.from_numpy(np.random.rand(*x.shape)).float(),
    "random": lambda x: x.new_full(x.shape, random.random()),
}
WAYS = [
    {"use_reentrant": reentrant, "preserve_rng_state": kept} for reentrant in (True, False) for kept in (True, False)
]


def gradient(model: nn.Module, x: Tensor = X, first: int = 0) -> tuple[Tensor, Tensor]:
    called = batch_invariant(model, uses_torch_random=True)
    with use_keys(make_keys(0, range(first, first + len(x)), "draws")):
        return autograd(lambda z, rows=None: called(z).logits.sum(1), x)


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_gradient_is_that_of_the_numbers_drawn_in_the_forward_pass(
    draw: Callable[[Tensor], Tensor], how: dict[str, bool]
) -> None:
    values, slopes = gradient(Scaled(draw, **how))
    assert torch.allclose((slopes * X).flatten(1).sum(1), values)  # linear, given the draws
    assert torch.equal(slopes, gradient(Scaled(draw))[1])


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_gradient_of_an_example_does_not_depend_on_the_rest_of_the_batch(reentrant: bool) -> None:
    model = Scaled(torch.rand_like, use_reentrant=reentrant)
    assert torch.equal(gradient(model)[1][3:], gradient(model, X[3:], first=3)[1])


def test_what_a_model_seeds_itself_stays_as_it_is() -> None:
    class Seeded(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            torch.manual_seed(7)
            return super().forward(x)

    own, twin = Seeded(torch.rand_like, use_reentrant=False), Seeded(torch.rand_like)
    assert torch.equal(gradient(own)[1], gradient(twin)[1])
    torch.manual_seed(7)
    drawn = [1 + torch.rand(16, 1, 2, 2)[: len(X)] for _ in range(3)]  # batches are filled up to 16
    assert torch.allclose(gradient(own)[1], drawn[0] * drawn[1] * drawn[2])


def test_the_state_of_all_generators_survives_the_backward_pass() -> None:
    values = query(Scaled(torch.rand_like, use_reentrant=False), X.clone().requires_grad_()).logits
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]
    values.sum().backward()
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # type: ignore[index]


@pytest.mark.parametrize("reentrant", [True, False])
def test_parts_inside_have_surrogates_and_are_traced(reentrant: bool) -> None:
    model = Scaled(torch.rand_like, use_reentrant=reentrant)
    twin = Scaled(torch.rand_like)
    for view in (bpda("part", lambda x: 2 * x), straight_through):
        assert torch.equal(gradient(view(model))[1], gradient(view(twin))[1])
    events = trace(model, X.clone().requires_grad_(), make_keys(0, range(len(X)), "draws"))
    assert [event.name for event in events].count("ReLU") == 3
    assert not any(event.custom for event in events)


def test_memory_is_that_of_one_step() -> None:
    held: list[Tensor] = []
    model = Scaled(torch.rand_like, use_reentrant=True)

    def keep(tensor: Tensor) -> Tensor:
        held.append(tensor)
        return tensor

    with recomputed(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(X.clone().requires_grad_())
    assert len(held) <= 3  # what each step is given, at most


def test_torch_is_as_it_was_afterwards() -> None:
    x = X.clone().requires_grad_()
    value = Scaled(torch.rand_like, use_reentrant=True)(x).sum()
    with pytest.raises(RuntimeError, match="use_reentrant"):
        torch.autograd.grad(value, x)
