"""A copy of a model shares what cannot be copied, and nothing else."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from unmask.state.deep_copy import deep_copy


class Holder:
    """An object of the author's, with a lock and a tensor."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.table = torch.zeros(2)


def forever() -> Iterator[int]:
    while True:
        yield 1


class Model(nn.Module):
    def __init__(self, one: Any) -> None:
        super().__init__()
        self.one = one
        self.net = nn.Linear(2, 2)


@pytest.mark.parametrize("make", [threading.Lock, lambda: math, forever, random.SystemRandom])
def test_what_cannot_be_copied_is_shared(make: Any) -> None:
    model = Model(make())
    twin: Any = deep_copy(model)
    assert twin.one is model.one
    assert twin.net.weight is not model.net.weight


def test_what_holds_it_is_copied() -> None:
    model = Model({"held": [Holder()], "again": ...})
    model.one["again"] = model.one["held"][0].lock
    twin: Any = deep_copy(model)
    (held,), (before,) = twin.one["held"], model.one["held"]
    assert held is not before
    assert held.table is not before.table
    assert held.lock is before.lock is twin.one["again"]


def test_a_part_with_a_lock_is_copied() -> None:
    model = Model(None)
    vars(model.net)["lock"] = threading.Lock()
    twin: Any = deep_copy(model)
    assert twin.net is not model.net
    assert twin.net.weight is not model.net.weight


class Refusing(nn.Module):
    """A part that cannot be copied."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("no copies")


def test_a_part_that_cannot_be_copied_is_not_shared_in_silence() -> None:
    with pytest.raises(TypeError, match="no copies"):
        deep_copy(nn.Sequential(nn.Linear(2, 2), Refusing()))
