"""Known truth: each model of the zoo has its own kinds at its own places, and sound models have none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.zoo import ZOO, Around, entry
from unmask.cases import find_case
from unmask.data import load
from unmask.diagnosis.findings import findings
from unmask.diagnosis.probe import GradientProbe, probe_gradients
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.models.targets import prepare_target
from unmask.randomness import make_keys, use_keys
from unmask.types import as_output

NETS = {name: find_case(name).load() for name in ("plain-digits", "madry-digits")}
DATA = load("digits", n=128)
IMAGES, LABELS = DATA.batch()


def examined(model: nn.Module) -> GradientProbe:
    target = prepare_target(model.eval(), DATA, ExecutionConfig(strict=False))
    model = target.model
    with torch.no_grad(), use_keys(make_keys(0, range(len(IMAGES)), "right"), uses_torch_random=True):
        logits, reject = as_output(model(IMAGES))
    taken = torch.ones_like(LABELS, dtype=torch.bool) if reject is None else reject <= 0
    right = ((logits.argmax(1) == LABELS) & taken).nonzero().squeeze(1)[:16]
    return probe_gradients(model, IMAGES[right], LABELS[right], 0.15, make_keys(0, right, "examine"), target.draws)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", ZOO)
def test_kind_and_place(name: str, net: str) -> None:
    """What lies behind another fault is seen only once that is passed: see the tests of the audit.

    So is whether noise costs the plain attack anything, without which it is no finding.
    """
    model, kinds, places = ZOO[name]
    found = [f for f in findings(examined(model(NETS[net]))) if kinds or f.kind != "stochastic"]
    assert {finding.kind for finding in found} <= kinds
    assert bool(found) == bool(kinds)
    assert {finding.module for finding in found} <= places


def test_the_zoo_is_known_by_its_names_only_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        entry()(type("Itself", (Around,), {}))


def test_a_straight_through_estimator_that_works_is_no_fault_at_the_attacks_scale() -> None:
    class Honest(Around):
        def forward(self, x: torch.Tensor) -> object:
            return self.net(x + (torch.round(x * 31) / 31 - x).detach())

    assert not findings(examined(Honest(NETS["plain-digits"])))


def test_the_model_is_left_as_it_was() -> None:
    model = ZOO["InnerDescent"].build(NETS["plain-digits"]).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]
    apply = torch.autograd.Function.__dict__["apply"]
    examined(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert hooks == [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]
    assert torch.autograd.Function.__dict__["apply"] is apply


def test_logits_under_tanh_are_squashed() -> None:
    class Squashed(Around):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = torch.tanh(self.net(x) / 3)
            return answer

    (found,) = findings(examined(Squashed(NETS["plain-digits"])))
    assert (found.kind, found.module) == ("vanishing", "")
    assert found.evidence["saturated_logits"] > 0.5
