from __future__ import annotations

from functools import singledispatch
from pathlib import Path

import torch
from torch import Tensor, nn

from unmask.diagnosis.trace import trace


class Dispatched(nn.Module):
    """An operation that Python's library calls."""

    def forward(self, x: Tensor) -> Tensor:
        return singledispatch(torch.relu)(x.flatten(1))


def test_places_are_lines_of_the_author() -> None:
    events = trace(Dispatched(), torch.rand(2, 1, 2, 2, requires_grad=True))
    assert {event.name for event in events} >= {"flatten", "relu"}
    assert {event.line.split(":")[0] for event in events if not event.module} == {Path(__file__).name}


class MadeLike(nn.Module):
    """``x.new`` makes a tensor of a size, or of the numbers in a tuple."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new(x.size()).copy_(x).flatten(1)


def test_sizes_stay_sizes() -> None:
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    made = trace(MadeLike(), x)[-1].outputs[0].value
    assert torch.equal(made, x.detach().flatten(1))
