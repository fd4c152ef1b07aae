from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.diagnosis.probe import probe_gradients
from unmask.gradients.straight_through import straight_through
from unmask.models.model_wrappers import frozen_copy
from unmask.models.own_training import differentiates_by_weights
from unmask.randomness import make_keys
from unmask.threats import Linf

X, Y = torch.full((4, 1, 1, 2), 0.4), torch.zeros(4, dtype=torch.long)


class Scaled(nn.Module):
    """Right while the first pixel is below 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * (x.flatten(1)[:, 0] - 0.5)
        return torch.stack([-score, score], 1)


class Adapts(nn.Module):
    """One step of SGD in a copy, of length 0.5 on a loss of slope -1: the scale becomes 1.5."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Scaled()

    def forward(self, x: Tensor) -> Tensor:
        net = copy.deepcopy(self.net)
        optimizer = torch.optim.SGD(net.parameters(), 0.5)
        with torch.enable_grad():
            (0 * net(x.detach()).sum() - net.scale).backward()
        optimizer.step()
        answer: Tensor = net(x)
        return answer


class Counts(Scaled):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return super().forward(x)


def test_weights_are_frozen_but_where_a_model_differentiates_by_them() -> None:
    model = Adapts().eval()
    assert torch.allclose(model(X), torch.tensor([0.15, -0.15]).expand(4, 2))
    with pytest.raises(RuntimeError, match="does not require grad"):
        frozen_copy(model)(X)
    assert torch.equal(frozen_copy(model, X)(X), model(X))
    assert not any(one.requires_grad for one in frozen_copy(Scaled(), X).parameters())
    assert model.net.scale.grad is None
    assert model.net.scale.item() == 1


def test_a_model_that_fails_in_any_case_is_frozen() -> None:
    class Fails(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no images of this size")

    assert not differentiates_by_weights(Fails(), X)


def test_the_trial_leaves_no_trace_in_what_copies_share() -> None:
    assert not differentiates_by_weights(Counts(), X)
    assert Counts.calls == 0


def test_a_model_that_adapts_is_probed_and_attacked() -> None:
    model = Adapts().eval()
    found = probe_gradients(model, X, Y, 0.2, make_keys(0, range(4), "probe"))
    assert not found.faults
    assert found.saturation.zero_gradient == 0
    for view in (None, straight_through):
        result = run_attack(pgd(5), model, X, Y, Linf(0.2), view=view)
        assert not result.verdict.robust_fraction.any()
    assert run_attack(pgd(5), model, X, Y, Linf(0.05)).verdict.robust_fraction.all()
