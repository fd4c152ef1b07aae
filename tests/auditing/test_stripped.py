"""What is searched for examples that transfer, for models of known truth."""

from __future__ import annotations

import pytest
import torch

from benchmarks.zoo import ZOO
from unmask.attacks.settings import pgd
from unmask.auditing.stripped import sources
from unmask.cases import find_case
from unmask.data import load
from unmask.diagnosis.examine import examine
from unmask.judging import Judge
from unmask.losses import margin
from unmask.randomness import stream
from unmask.threats import Linf
from unmask.trials import trial

NET = find_case("plain-digits").load()
X, Y = load("digits", n=48).batch()
INDEX = torch.arange(48)


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("ModuleRound", ['bypass("quantize")']),
        ("ThroughNumpy", ['only("net")']),
        ("InlineRound", ['only("net")']),
        ("Itself", []),
    ],
)
def test_the_guilty_parts_are_left_out_and_what_is_left_transfers(name: str, stripped: list[str]) -> None:
    model = ZOO[name].build(NET).eval()
    evidence = examine(model, X[:16], Y[:16], 0.15, stream(0, INDEX[:16], "examine"))
    found = sources(model, evidence, X, 0.15, stream(0, INDEX, "sources"), steps=40)
    assert [way.code[0] for way in found[:-1]] == stripped
    assert found[-1].code[0].startswith("fit_copy")
    for way in found:
        result = trial(Judge(model, Linf(0.25)), model, pgd(30, margin, size=0.1), X, Y, view=way.view)
        assert result.accuracy.value < 0.2
