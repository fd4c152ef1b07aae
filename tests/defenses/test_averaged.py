from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask.defenses.averaged import Averaged


def test_probabilities_are_averaged() -> None:
    torch.manual_seed(0)
    x = torch.rand(5, 1, 2, 2)
    members = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(3)]
    mean = torch.stack([member(x).softmax(1) for member in members]).mean(0)
    assert torch.allclose(Averaged(members)(x).exp(), mean, atol=1e-6)


def test_an_average_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one member"):
        Averaged([])
