from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.diagnosis.findings import draws
from unmask.diagnosis.stochastic import noise, sources
from unmask.randomness import stream, uniform

X = torch.rand(32, 1, 10, 10, generator=torch.Generator().manual_seed(1))
Y = torch.zeros(32, dtype=torch.long)
KEYS = stream(0, range(32), "test")
SIGNAL = torch.randn(100, generator=torch.Generator().manual_seed(2))


class Noisy(nn.Module):
    """Its gradient is SIGNAL plus ``level`` times a fresh standard normal vector."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        weight = SIGNAL + self.level * torch.randn_like(flat)
        return torch.stack([(flat * weight).sum(1), torch.zeros(len(x))], 1)


@pytest.mark.parametrize("level", [0.0, 1.0, 3.0])
def test_the_signal_is_its_share_of_the_energy(level: float) -> None:
    found = noise(Noisy(level), X, Y, KEYS, draws=16)
    expected = float(SIGNAL.square().sum() / (SIGNAL.square().sum() + 100 * level**2))
    assert found.signal == pytest.approx(expected, abs=0.03)


def test_draws_balance_noise_and_signal() -> None:
    assert [draws(share) for share in (1.0, 0.5, 0.2, 0.0)] == [1, 1, 4, 32]


def test_sources_are_where_torch_or_the_library_draws() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x + 0.1 * torch.rand_like(x)
            return (x * uniform(x.shape, like=x)).flatten(1)

    found = {event.code for event in sources(Two(), X, KEYS)}
    assert found == {"x = x + 0.1 * torch.rand_like(x)", "return (x * uniform(x.shape, like=x)).flatten(1)"}


def test_a_model_without_randomness_has_no_source() -> None:
    assert sources(nn.Flatten(), X, KEYS) == []
