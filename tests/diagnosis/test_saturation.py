from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.diagnosis.saturation import Saturation, saturation
from unmask.randomness import make_keys

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(6, dtype=torch.long)


class Scaled(nn.Module):
    def __init__(self, scale: float, probabilities: bool = False) -> None:
        super().__init__()
        self.scale, self.probabilities = scale, probabilities

    def forward(self, x: Tensor) -> Tensor:
        logits = self.scale * torch.stack([x.flatten(1).sum(1) + 5, x.flatten(1)[:, 0], 0 * x.flatten(1)[:, 0]], 1)
        return logits.softmax(1) if self.probabilities else logits


class Squashed(nn.Module):
    """Of four logits, as many are flat as are not, or all but one."""

    def __init__(self, flat: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([8.0] * flat + [0.01] * (4 - flat)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.scale * (1 + x.flatten(1)[:, :4]))  # type: ignore[operator]


@pytest.mark.parametrize(("flat", "share"), [(0, 0.0), (1, 0.0), (3, 1.0)])
def test_squashed_where_most_logits_are_flat_and_some_are_not(flat: int, share: float) -> None:
    found = saturation(Squashed(flat), X, Y, make_keys(0, range(6), "test"))
    assert (found.flat, found.saturated_logits) == (0.0, share)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Scaled(1.0), Saturation(0.0, 0.0, False)),
        (Scaled(1e-6), Saturation(0.0, 0.0, False)),
        (Scaled(100.0), Saturation(1.0, 0.0, False)),
        (Scaled(100.0, probabilities=True), Saturation(1.0, 1.0, True)),
        (Scaled(0.1, probabilities=True), Saturation(0.0, 0.0, True)),
    ],
)
def test_flat_and_silent(model: nn.Module, expected: Saturation) -> None:
    assert saturation(model, X, Y, make_keys(0, range(6), "test")) == expected
