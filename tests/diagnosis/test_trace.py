from __future__ import annotations

import copy
from functools import singledispatch
from pathlib import Path

import torch
from torch import Tensor, nn

from unmask.diagnosis.instrumentation import record_io
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


class Copying(nn.Module):
    """A copy of its net answers, as in adaptation at test time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = copy.deepcopy(self.net)(x)
        return answer


def test_a_copy_that_the_model_makes_of_a_part_counts_as_the_part() -> None:
    model = Copying()
    events = trace(model, torch.rand(2, 1, 2, 2, requires_grad=True))
    parts = [event.part for event in events if event.module]
    assert parts == ["net.0", "net.1", "net", ""]
    assert {event.part for event in events if event.name == "linear"} == {"net.1"}
    x = torch.rand(2, 1, 2, 2)
    with record_io(model) as spots:
        answer = model(x)
    assert list(spots) == ["net.0", "net.1", "net", ""]
    assert torch.equal(spots["net.1"][0], x.flatten(1))
    assert torch.equal(spots["net.1"][1], answer)
