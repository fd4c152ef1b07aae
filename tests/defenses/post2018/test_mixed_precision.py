from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from unmask.defenses.post2018.networks.mixed_precision import (
    MixedPrecision,
    RoundedActivation,
    RoundedWeight,
    Vote,
    low_precision_net,
)


def logits_of(answers: tuple[int, ...], classes: int = 4) -> Tensor:
    """(1, members, classes) logits, each member certain of its answer to another degree."""
    return torch.stack([torch.eye(classes)[answer] * (5 + member) for member, answer in enumerate(answers)])[None]


def test_the_class_of_two_of_three_members_wins() -> None:
    for answers in product(range(4), repeat=3):
        votes = Vote()(logits_of(answers))[0]
        assert votes.tolist() == [answers.count(c) for c in range(4)]
        if len(set(answers)) < 3:
            assert votes.argmax().item() == max(answers, key=answers.count)


def test_without_a_majority_the_lowest_number_wins() -> None:
    assert Vote()(logits_of((3, 1, 2))).argmax(1).item() == 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_rounded_numbers_have_as_many_levels_as_the_bits_allow(bits: int) -> None:
    h = torch.linspace(-0.5, 1.5, 1001)
    levels = RoundedActivation(bits)(h)
    steps = 2**bits - 1
    assert torch.allclose(levels.unique(), torch.arange(2**bits) / steps)
    assert (levels - h.clamp(0, 1)).abs().max() <= 0.5 / steps + 1e-6
    weights = RoundedWeight(bits)(h)
    assert torch.allclose(weights.unique().abs().amax(), torch.tensor(1.0))
    assert len(weights.unique()) <= 2**bits


def test_the_gradient_passes_the_rounding_where_nothing_is_clipped() -> None:
    h = torch.tensor([-0.2, 0.3, 0.6, 1.4], requires_grad=True)
    RoundedActivation(2)(h).sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_network_of_low_precision_has_rounded_weights_but_in_the_first_and_last_layer() -> None:
    net = low_precision_net(1, 8, 2, 4)
    layers = [layer for layer in net if isinstance(layer, nn.Conv2d | nn.Linear)]
    distinct = [len(layer.weight.detach().unique()) for layer in layers]
    assert all(count <= 4 for count in distinct[1:-1])
    assert min(distinct[0], distinct[-1]) > 100


def test_a_vote_without_members_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one member"):
        MixedPrecision([])
