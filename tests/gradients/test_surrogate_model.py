from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.cases import find_case
from unmask.data import load
from unmask.gradients.surrogates.surrogate_model import train_surrogate
from unmask.randomness import make_keys
from unmask.types import Output

NET = find_case("plain-digits").load()
X, Y = load("digits", n=128).batch()
KEYS = make_keys(0, range(128), "copy")


@pytest.mark.parametrize(
    "victim",
    [
        NET,
        lambda x: 1e4 * NET(x) + 1e6,
        lambda x: F.one_hot(NET(x).argmax(1), 10).float(),
        lambda x: Output(NET(x), x.mean((1, 2, 3))),
    ],
    ids=["logits", "hot and shifted", "labels", "a detector"],
)
def test_a_copy_answers_alike_whatever_the_scale(victim: nn.Module) -> None:
    copy = train_surrogate(victim, X, 0.15, KEYS)
    fresh = load("digits", n=256).batch(128)[0]
    assert (copy(fresh).argmax(1) == NET(fresh).argmax(1)).float().mean() > 0.85


def test_a_copy_is_the_same_every_time_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, other = (
        train_surrogate(NET, X[:16], 0.15, KEYS.select(torch.arange(16)), rounds=2, steps=5) for _ in range(2)
    )
    assert torch.equal(one(X), other(X))
    assert torch.equal(before, torch.random.get_rng_state())


def test_it_asks_twice_its_images_in_each_round() -> None:
    asked: list[int] = []

    def counting(x: Tensor) -> Tensor:
        asked.append(len(x))
        return x.flatten(1)[:, :3]

    train_surrogate(counting, X[:20], 0.1, KEYS.select(torch.arange(20)), rounds=3, steps=1)
    assert sum(asked) == 2 + 3 * 2 * 20  # two images tell how many classes there are
