from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.defenses.post2018.networks.self_ensemble import AddNoise, SelfEnsemble, noisy
from unmask.nets import residual_net
from unmask.randomness import make_keys, use_keys

N = 20_000


def test_noise_has_the_given_size_and_no_mean_in_training_and_in_evaluation() -> None:
    for mode in (True, False):
        with use_keys(make_keys(0, range(N), "test")):
            out = AddNoise(0.2).train(mode)(torch.full((N, 1), 3.0))
        assert out.mean().item() == pytest.approx(3.0, abs=4 * 0.2 / N**0.5)
        assert out.std().item() == pytest.approx(0.2, rel=0.03)


def test_every_convolution_has_noise_in_front_and_the_first_one_the_larger() -> None:
    net = noisy(residual_net(3, (8, 16), whitening=0, strided=True))
    pairs = [part for part in net.modules() if isinstance(part, nn.Sequential) and isinstance(part[0], AddNoise)]
    assert all(isinstance(pair[1], nn.Conv2d) for pair in pairs)
    assert len(pairs) == sum(isinstance(part, nn.Conv2d) for part in net.modules()) == 1 + 2 * 3
    assert [pair[0].size for pair in pairs] == [0.2] + 6 * [0.1]


class Counted(nn.Module):
    """Logits 0 and a uniform number, and how many rows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows = len(x)
        return torch.stack((torch.zeros(len(x)), torch.arange(len(x)) % 3.0), 1)


def test_a_prediction_is_the_mean_of_the_members_probabilities() -> None:
    """Of three images and two copies each, row i of the copies is example i: logits (0, i) in every copy."""
    net = Counted()
    out = SelfEnsemble(net, members=2).eval()(torch.zeros(3, 1, 2, 2))
    assert net.rows == 6
    expected = torch.stack((torch.zeros(3), torch.arange(3.0)), 1).softmax(1)
    assert torch.allclose(out.exp(), expected)


def test_members_have_draws_of_their_own_and_their_mean_varies_less() -> None:
    def spread(members: int) -> float:
        model = SelfEnsemble(nn.Sequential(AddNoise(0.1), nn.Flatten()), members).eval()
        with use_keys(make_keys(0, range(2000), "test")):
            return float(model(torch.zeros(2000, 2, 1, 1))[:, 0].std())

    assert spread(16) == pytest.approx(spread(1) / 4, rel=0.1)


def test_training_takes_a_single_draw() -> None:
    net = Counted()
    out = SelfEnsemble(net, members=10).train()(torch.zeros(3, 1, 2, 2))
    assert net.rows == 3
    assert out[:, 1].tolist() == [0, 1, 2]


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one member"):
        SelfEnsemble(nn.Flatten(), 0)
    with pytest.raises(ValueError, match="standard deviation of at least 0"):
        AddNoise(-0.1)
