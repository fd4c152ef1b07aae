"""Each option of the command line does what it says, alone and with the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.evaluation.attack_registry import ATTACKS, attack_from_options


class Part(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.round()


class Twice(nn.Module):
    """Rounds in a part, in a part of a part, and inline."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Part()
        self.second = nn.Sequential(Part())

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(3 * self.first(x))
        return (2 * x.flatten(1)).floor()


def options(**given: Any) -> dict[str, Any]:
    return {"attack": "apgd", "steps": 5, "restarts": 1, **given}


def gradient(**given: Any) -> float:
    view = attack_from_options(options(**given)).view
    assert view is not None
    x = torch.full((1, 1, 1, 1), 0.8, requires_grad=True)
    value = view(Twice())(x)
    assert value.item() == 6
    (found,) = torch.autograd.grad(value.sum(), x)
    return found.item()


def test_views_compose() -> None:
    """3 in the middle and 2 at the end are the only slopes; what is left out stops the gradient."""
    assert gradient(bpda=["first", "second.0=identity"]) == 0
    assert gradient(straight_through=True) == 6
    assert gradient(bpda=["first", "second"], straight_through=True) == 6
    assert gradient(bpda=["second"], straight_through=True) == 6


@pytest.mark.parametrize("name", [name for name, setting in ATTACKS.items() if setting.gradients])
def test_every_gradient_attack_takes_the_estimator(name: str) -> None:
    parts = attack_from_options(options(attack=name, eot=3, spsa=7)).make(nn.Identity())
    searches = [part for part in getattr(parts, "attacks", (parts,)) if hasattr(part, "estimator")]
    assert searches
    for search in searches:
        assert (search.estimator.samples, search.estimator.inner.samples) == (3, 7)


def test_plain_is_a_gradient_attack_without_any_technique() -> None:
    assert attack_from_options(options()).plain
    for technique in ({"eot": 2}, {"spsa": 2}, {"bpda": ["x"]}, {"straight_through": True}, {"attack": "square"}):
        assert not attack_from_options(options(**technique)).plain


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"attack": "nope"}, "no attack 'nope'; attacks: fgsm, pgd"),
        ({"bpda": ["encode=ramp"]}, "no surrogate 'ramp' for part 'encode'"),
        ({"attack": "square", "eot": 3}, "square takes no gradient: leave out --eot"),
        ({"attack": "random", "straight_through": True}, "random takes no gradient: leave out --straight-through"),
    ],
)
def test_what_there_is_not(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack_from_options(options(**given))


def test_an_unknown_part_is_told_with_the_models_own_paths() -> None:
    view = attack_from_options(options(bpda=["first", "third"])).view
    assert view is not None
    with pytest.raises(ValueError, match=r"no part 'third'; its parts: first, second, second\.0"):
        view(Twice())
