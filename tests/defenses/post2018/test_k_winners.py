from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask.defenses.post2018.networks.k_winners import KWinners, soft_winners, with_winners
from unmask.gradients.bpda import bpda

H = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("fraction", "winners"), [(0.1, 6), (0.5, 30), (1.0, 60), (0.001, 1)])
def test_the_largest_of_all_units_of_an_image_keep_their_values(fraction: float, winners: int) -> None:
    out = KWinners(fraction)(H)
    for h, w in zip(H.flatten(1), out.flatten(1), strict=True):
        expected = torch.zeros(60)
        index = h.sort(descending=True).indices[:winners]
        expected[index] = h[index]
        assert torch.equal(w, expected)


def test_a_winner_may_be_below_zero_and_ties_win_together() -> None:
    assert KWinners(0.5)(torch.tensor([[-1.0, -2.0, -3.0, -4.0]])).tolist() == [[-1, -2, 0, 0]]
    assert KWinners(0.25)(torch.tensor([[2.0, 1.0, 2.0, 0.0]])).tolist() == [[2, 0, 2, 0]]


def test_the_gradient_is_one_for_winners_and_zero_for_others() -> None:
    h = torch.tensor([[3.0, 1.0, 2.0, -5.0]], requires_grad=True)
    KWinners(0.5)(h).sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [[1, 0, 1, 0]]


def test_the_output_jumps_where_a_unit_overtakes_another() -> None:
    """At a tie of 1 the loser's value of almost 1 becomes 0, however small the change."""
    below, above = KWinners(0.5)(torch.tensor([[1.0, 1 - 1e-6], [1.0, 1 + 1e-6]]))
    assert (below - above).abs().sum() > 1.99


def test_the_surrogate_is_a_sigmoid_of_the_distance_from_the_threshold() -> None:
    """The threshold is 2 and the standard deviation of (0, 1, 2, 3) is the root of 5 / 3."""
    h = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    width = 0.5 * (5 / 3) ** 0.5
    expected = h * ((h - 2) / width).sigmoid()
    assert torch.allclose(soft_winners(KWinners(0.5), 0.5)(h), expected)


def test_a_narrow_surrogate_is_the_layer_itself_but_for_the_threshold() -> None:
    compete = KWinners(0.3)
    out, soft = compete(H), soft_winners(compete, 1e-6)(H)
    off = compete.threshold(H) != H
    assert torch.allclose(soft[off], out[off], atol=1e-5)


def test_every_relu_of_a_network_competes_and_the_view_keeps_the_output() -> None:
    torch.manual_seed(0)
    net = with_winners(nn.Sequential(nn.Flatten(), nn.Linear(60, 30), nn.ReLU(), nn.Linear(30, 4)), 0.2)
    assert [type(layer) for layer in net] == [nn.Flatten, nn.Linear, KWinners, nn.Linear]
    assert ((net[:3](H) != 0).sum(1) == 6).all()
    compete = net[2]
    assert isinstance(compete, KWinners)
    view = bpda("2", soft_winners(compete, 0.3))(net)
    assert torch.equal(view(H.clone().requires_grad_()), net(H))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_a_fraction_without_meaning_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction of winners"):
        KWinners(fraction)
