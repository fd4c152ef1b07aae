from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.cases.post2018.test_time.odds import fit_odds
from unmask.defenses.post2018.test_time.odds import OddsTest, WithNoise
from unmask.randomness import make_keys, use_keys

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Squares(nn.Module):
    """Three logits: the mean squares of the pixels of three rows, which noise raises by its variance."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, 0, :3] - 0.5).square().mean(2)


def test_noise_has_the_given_size_and_copies_stay_in_the_range_of_images() -> None:
    with use_keys(make_keys(0, range(200), "test")):
        copies = WithNoise(8, 0.05)(torch.full((200, 1, 4, 4), 0.5))
    assert copies.shape == (1600, 1, 4, 4)
    assert copies.std().item() == pytest.approx(0.05, rel=0.05)
    assert WithNoise(8, 9.0)(X).min() == 0
    assert WithNoise(8, 9.0)(X).max() == 1


def test_a_linear_classifiers_log_odds_do_not_change_on_average() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with use_keys(make_keys(0, range(6), "test")):
        logits, changes = OddsTest(net, 3, samples=4000, size=0.01).changes(X.clamp(0.1, 0.9))
    assert torch.allclose(changes, torch.zeros(6, 3), atol=1e-3)
    assert not changes.gather(1, logits.argmax(1, keepdim=True)).any()


def test_the_score_is_the_largest_standardised_change_of_the_other_classes() -> None:
    """Under noise of variance v the log-odds of rows change by the difference of what clipping takes from v."""
    x = torch.full((1, 1, 4, 4), 0.5)
    x[:, :, 0] = 0.6  # the answer is class 0, and all classes change by v: no change of the log-odds
    model = OddsTest(Squares(), 3, samples=3000, size=0.1)
    model.mean[0], model.deviation[0] = torch.tensor([0.0, -0.2, 0.3]), torch.tensor([1.0, 0.1, 0.1])
    model.threshold.fill_(0.5)
    with use_keys(make_keys(0, range(1), "test")):
        answer = model(x)
    assert answer.logits.argmax(1).item() == 0
    assert answer.reject is not None
    assert answer.reject.item() == pytest.approx(0.2 / 0.1 - 0.5, abs=0.05)


def test_statistics_are_those_of_the_right_answers() -> None:
    last = nn.Linear(16, 2, bias=False)
    last.weight.data = torch.tensor([[1.0], [-1.0]]) * torch.tensor([1.0, -1.0]).repeat(8)
    net = nn.Sequential(nn.Flatten(), last)
    x = torch.rand(80, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    y = net(x).argmax(1)
    y[:10] = 1 - y[:10]  # taken for wrong
    model = OddsTest(net, 2, samples=2)
    fit_odds(model, x, y, seed=0)
    with torch.no_grad(), use_keys(make_keys(0, range(80), "odds")):
        _, changes = model.changes(x)
    own = changes[10:][y[10:] == 0]
    assert torch.allclose(model.mean[0], own.mean(0), atol=1e-5)
    assert torch.allclose(model.deviation[0, 1], own[:, 1].std(), atol=1e-5)


def test_without_a_sample_there_is_no_test() -> None:
    with pytest.raises(ValueError, match="at least 1 sample"):
        OddsTest(nn.Flatten(), samples=0)
