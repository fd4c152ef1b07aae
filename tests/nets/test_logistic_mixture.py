from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from unmask.nets.logistic_mixture import greedy, log_likelihood, numbers, scaled


def random_parameters(*shape: int, channels: int, components: int, seed: int = 0) -> Tensor:
    """Of all sizes, from narrow to wide, some with means outside of the range."""
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.randn(*shape, numbers(channels, components), generator=generator, dtype=torch.double)
    parameters[..., (1 + channels) * components : (1 + 2 * channels) * components] *= 3  # logarithms of scales
    return parameters


@pytest.mark.parametrize("components", [1, 4])
def test_probabilities_of_a_channel_sum_to_one(components: int) -> None:
    parameters = random_parameters(20, channels=1, components=components)
    levels = torch.arange(256).view(256, 1, 1).expand(-1, 20, -1)
    total = log_likelihood(parameters.expand(256, -1, -1), levels).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_probabilities_of_two_channels_sum_to_one() -> None:
    parameters = random_parameters(2, channels=2, components=3)
    levels = torch.tensor(list(itertools.product(range(256), repeat=2))).unsqueeze(1)
    total = log_likelihood(parameters, levels.expand(-1, 2, -1)).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_level_has_the_mass_between_its_edges() -> None:
    """Against the definition: differences of the logistic distribution function, the ends unbounded."""
    mean, log_scale = 0.1, -2.0
    level = torch.arange(256)
    edges = ((scaled(torch.arange(255.0, dtype=torch.double) + 0.5) - mean) / torch.tensor(log_scale).exp()).sigmoid()
    wanted = torch.cat((edges[:1], edges.diff(), 1 - edges[-1:]))
    found = log_likelihood(torch.tensor([0.0, mean, log_scale]).double().expand(256, -1), level.unsqueeze(1))
    torch.testing.assert_close(found.exp(), wanted)


def test_a_mean_moves_with_the_channel_before() -> None:
    """One component, coefficient atanh(0.5): the second mean moves by half the first value."""
    parameters = torch.tensor([0.0, 0.0, 0.2, -1.0, -3.0, 0.5]).double()
    parameters[5] = parameters[5].atanh()
    level = torch.tensor([200, 90])
    alone = torch.stack(
        [
            log_likelihood(torch.tensor([0.0, 0.0, -1.0]).double(), level[:1]),
            log_likelihood(
                torch.stack((torch.tensor(0.0), 0.2 + scaled(level[0]) / 2, torch.tensor(-3.0))).double(), level[1:]
            ),
        ]
    )
    torch.testing.assert_close(log_likelihood(parameters, level), alone.sum())


@pytest.mark.parametrize("channels", [1, 3])
def test_greedy_takes_the_most_probable_channel_after_channel(channels: int) -> None:
    """Against all candidates, by the likelihoods of beginnings of the pixel."""
    parameters = random_parameters(40, channels=channels, components=4)
    generator = torch.Generator().manual_seed(1)
    low = torch.randint(0, 240, (40, channels), generator=generator)
    high = (low + torch.randint(0, 33, (40, channels), generator=generator)).clamp_max(255)
    found = greedy(parameters, low, high)
    for row in range(40):
        chosen: list[int] = []
        for channel in range(channels):
            candidates = range(int(low[row, channel]), int(high[row, channel]) + 1)
            scores = [beginning(parameters[row], [*chosen, v], channels) for v in candidates]
            chosen.append(candidates[max(range(len(scores)), key=scores.__getitem__)])
        assert found[row].tolist() == chosen


def beginning(parameters: Tensor, levels: list[int], channels: int) -> float:
    """Log likelihood of the first channels of a pixel: all others as parameters of fewer channels."""
    count, components = len(levels), len(parameters) // numbers(channels, 1)
    groups = parameters.split(components)
    kept = [groups[0], *groups[1 : 1 + count], *groups[1 + channels : 1 + channels + count]]
    kept += groups[1 + 2 * channels : 1 + 2 * channels + count * (count - 1) // 2]
    return float(log_likelihood(torch.cat(kept), torch.tensor(levels)))


def test_the_likelihood_is_finite_and_differentiable_far_from_all_means() -> None:
    parameters = torch.tensor([0.0, 5.0, -20.0]).requires_grad_()  # single precision
    value = log_likelihood(parameters, torch.tensor([0]))
    value.backward()
    assert parameters.grad is not None
    assert value.isfinite()
    assert parameters.grad.isfinite().all()
    assert value < -100
