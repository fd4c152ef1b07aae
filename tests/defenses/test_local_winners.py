from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from unmask.defenses.post2018.networks.local_winners import LocalWinners, WinnersNet, expected_winner
from unmask.gradients.bpda import bpda
from unmask.randomness import make_keys, use_keys

H = torch.tensor([1.0, 2.0, -0.5, 0.5, 3.0, 0.0])
N = 20_000


def draws(compete: nn.Module, h: Tensor, n: int = N) -> Tensor:
    """What ``compete`` makes of copies of ``h`` (units,), each by draws of its own."""
    with use_keys(make_keys(0, range(n), "test")):
        return compete(h.expand(n, -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("units", [2, 3])
def test_a_unit_wins_with_the_probability_that_the_softmax_of_its_group_gives_it(units: int) -> None:
    out = draws(LocalWinners(units, temperature=1e-4).eval(), H)
    chance = H.view(-1, units).softmax(1).flatten()
    for j, (h, p) in enumerate(zip(H.tolist(), chance.tolist(), strict=True)):
        won = (out[:, j] - h).abs() < 1e-3
        if h != 0:  # a winner of 0 looks like a loser
            assert binomtest(int(won.sum()), N, p).pvalue > 0.01


def test_groups_draw_by_themselves_and_have_one_winner_each() -> None:
    out = draws(LocalWinners(2, temperature=1e-4).eval(), torch.tensor([1.0, 1.0, 1.0, 1.0])).round()
    assert (out.view(N, 2, 2).sum(2) == 1).all()
    assert torch.cov(out[:, [0, 2]].T)[0, 1].abs() < 4 * 0.25 / N**0.5


def test_the_surrogate_is_the_mean_over_draws() -> None:
    out = draws(LocalWinners(temperature=1e-3).eval(), H).double()
    error = out.mean(0) - expected_winner(H[None])[0]
    assert (error.abs() <= 4 * out.std(0) / N**0.5 + 1e-3).all()


def test_the_vector_is_all_but_one_hot_in_evaluation_and_soft_in_training() -> None:
    even = torch.ones(2)  # a tie: the output is the vector itself
    compete = LocalWinners()
    shares = {}
    for mode in (True, False):
        out = draws(compete.train(mode), even)
        assert torch.allclose(out.sum(1), torch.ones(N), atol=1e-5)
        shares[mode] = float(((out - 0.5).abs() < 0.4).float().mean())
    # the difference of two Gumbel draws is logistic: |difference| < temperature * log(9)
    for mode, temperature in ((True, 0.67), (False, 0.01)):
        width = torch.tensor(temperature * math.log(9))
        assert shares[mode] == pytest.approx(float(2 * width.sigmoid() - 1), abs=0.01)


def test_the_gradient_of_a_draw_is_that_of_its_output() -> None:
    compete = LocalWinners(temperature=0.3).eval()
    x = torch.randn(4, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def one_draw(h: Tensor) -> Tensor:
        with use_keys(make_keys(0, range(4), "test")):
            return compete(h)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(one_draw, (x,))


def test_near_a_tie_the_slope_is_that_of_the_temperature() -> None:
    """With a share w of the first of two units a, b, d(a w)/da = w + a w (1 - w) / temperature."""
    x = torch.tensor([[2.0, 1.9]]).expand(400, -1).clone().requires_grad_()
    with use_keys(make_keys(0, range(400), "test")):
        out = LocalWinners(temperature=0.01).eval()(x)
    (slope,) = torch.autograd.grad(out[:, 0].sum(), x)
    w = (out[:, 0] / 2).detach()
    assert torch.allclose(slope[:, 0], w + 2 * w * (1 - w) / 0.01, rtol=1e-3, atol=1e-4)
    assert slope.max() > 10
    assert (slope[:, 0] <= 1.01).float().mean() > 0.9


def test_one_part_is_every_activation_of_the_network() -> None:
    torch.manual_seed(0)
    net = WinnersNet(1, 8, width=4, depth=2).eval()
    calls = []
    net.compete.register_forward_hook(lambda *_: calls.append(1))
    x = torch.rand(2, 1, 8, 8)
    with use_keys(make_keys(0, range(2), "test")):
        plain = net(x)
    assert len(calls) == 2 + 2 + 1 + 1
    view = bpda("compete", expected_winner)(net)
    with use_keys(make_keys(0, range(2), "test")):
        assert torch.equal(view(x.requires_grad_()), plain)


@pytest.mark.parametrize("arguments", [(1,), (2, 0.0), (2, 0.1, -1.0)])
def test_settings_without_meaning_are_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="needs two units and a temperature above 0"):
        LocalWinners(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="5 units are no whole number of groups of 2"):
        LocalWinners()(torch.zeros(1, 5))
