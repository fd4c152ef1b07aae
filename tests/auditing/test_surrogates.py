"""What is searched for examples that transfer, for models of known truth."""

from __future__ import annotations

import pytest
import torch

from benchmarks.zoo import ZOO
from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.auditing.views.surrogates import surrogate_models
from unmask.cases import find_case
from unmask.data import load
from unmask.diagnosis.probe import probe_gradients
from unmask.losses import margin
from unmask.randomness import make_keys
from unmask.threats import Linf

NET = find_case("plain-digits").load()
X, Y = load("digits", n=48).batch()
INDEX = torch.arange(48)


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("ModuleRound", ['bypass("quantize")']),
        ("ThroughNumpy", ['submodule_only("net")']),
        ("InlineRound", ['submodule_only("net")']),
        ("Itself", []),
    ],
)
def test_the_guilty_parts_are_left_out_and_what_is_left_transfers(name: str, stripped: list[str]) -> None:
    model = ZOO[name].build(NET).eval()
    evidence = probe_gradients(model, X[:16], Y[:16], 0.15, make_keys(0, INDEX[:16], "examine"))
    found = surrogate_models(model, evidence, X, 0.15, make_keys(0, INDEX, "sources"), steps=40)
    assert [way.code[0] for way in found[:-1]] == stripped
    assert found[-1].code[0].startswith("train_surrogate")
    for way in found:
        result = run_attack(pgd(30, margin, rel_step_size=0.1), model, X, Y, Linf(0.25), view=way.view)
        assert result.accuracy.value < 0.2
