from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unmask.diagnosis.behaviour.stochastic import noise, shared, sources
from unmask.diagnosis.findings import draws
from unmask.randomness import make_keys, uniform

X = torch.rand(32, 1, 10, 10, generator=torch.Generator().manual_seed(1))
Y = torch.zeros(32, dtype=torch.long)
KEYS = make_keys(0, range(32), "test")
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
    assert [draws(share) for share in (1.0, 0.5, 0.2, 0.0)] == [1, 4, 16, 32]


def test_sources_are_where_torch_or_the_library_draws() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x + 0.1 * torch.rand_like(x)
            return (x * uniform(x.shape, like=x)).flatten(1)

    found = {event.code for event in sources(Two(), X, KEYS)}
    assert found == {"x = x + 0.1 * torch.rand_like(x)", "return (x * uniform(x.shape, like=x)).flatten(1)"}


def test_numbers_that_are_made_of_a_draw_are_no_further_source() -> None:
    class Moved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            down, right = torch.randint(1, 1000, (2,)).tolist()
            scale = float(torch.rand(()))
            moved = x.roll((down, right), (2, 3))
            return (moved * scale).flatten(1)

    found = {event.code for event in sources(Moved(), X, KEYS)}
    assert found == {"down, right = torch.randint(1, 1000, (2,)).tolist()", "scale = float(torch.rand(()))"}


def test_numbers_of_python_are_named_where_they_are_used_first() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scale = 1 + random.random()
            x = x * scale
            return (x.flatten(1) + scale) + torch.rand(x.shape).flatten(1)

    found = [event.code for event in sources(Scaled(), X, KEYS)]
    assert found == ["x = x * scale", "return (x.flatten(1) + scale) + torch.rand(x.shape).flatten(1)"]


def test_a_model_without_randomness_has_no_source() -> None:
    assert sources(nn.Flatten(), X, KEYS) == []


class Switch(nn.Module):
    """Asks one of its members, by a coin that is tossed for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList([nn.Flatten(), nn.Sequential(nn.Tanh(), nn.Flatten())])

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.members[random.randrange(2)](x)
        return answer


@pytest.mark.parametrize("seed", range(8))
def test_a_random_choice_among_parts_is_made_by_the_part_that_calls_them(seed: int) -> None:
    (found,) = sources(nn.Sequential(Switch()), X, make_keys(seed, range(32), "test"), draws=16)
    assert found.part == "0"
    assert found.code == "answer: Tensor = self.members[random.randrange(2)](x)"


def test_a_random_choice_without_parts_is_made_where_the_ways_part() -> None:
    class Sometimes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if random.random() < 0.5:
                x = x.flip(3)
            return x.flatten(1)

    for seed in range(8):
        (found,) = sources(Sometimes(), X, make_keys(seed, range(32), "test"), draws=16)
        assert (found.part, found.name) in {("", "flip"), ("", "flatten")}


@pytest.mark.parametrize(
    ("draw", "common"),
    [
        (lambda x: x + torch.randn_like(x), False),
        (lambda x: x + random.random(), True),
        (lambda x: x + torch.rand(()), True),
        (lambda x: x + random.choice([0.0, 1.0]) + 0.1 * torch.randn_like(x), True),
        (lambda x: x + 0.01 * random.random() + torch.randn_like(x), False),
    ],
)
def test_draws_that_are_common_to_a_batch(draw: Callable[[Tensor], Tensor], common: bool) -> None:
    class Drawn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return draw(x).flatten(1)

    assert shared(Drawn(), X, make_keys(0, range(16), "shared")) is common
