"""Rules from evidence to findings, without a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from unmask.defenses.transforms.bit_depth import ReduceBitDepth
from unmask.diagnosis.behaviour.stochastic import Noise
from unmask.diagnosis.faults import GradientFault
from unmask.diagnosis.findings import findings
from unmask.diagnosis.probe import GradientProbe, probe_gradients
from unmask.diagnosis.saturation import Saturation
from unmask.diagnosis.snapshots import TensorSnapshot
from unmask.diagnosis.trace import Event
from unmask.randomness import make_keys

SOUND = GradientProbe([], [], [], Noise(1.0, 0.0), Saturation(0.0, 0.0, False))


def event(name: str, part: str = "", line: str = "model.py:3") -> Event:
    held = TensorSnapshot(torch.zeros(1), None, (0, 0), 0)
    return Event(name, part, line, f"y = {name}(x)", False, (held,), (held,))


def fault(name: str, part: str = "", *, lost: bool = True, nearby: bool = False) -> GradientFault:
    return GradientFault(event(name, part), lost, {0.1: 0.0}, nearby)


def test_a_sound_model_has_none() -> None:
    assert findings(SOUND) == []


def test_a_fault_is_told_once_however_often_it_is_called() -> None:
    (found,) = findings(replace(SOUND, faults=[fault("detach", "pre")] * 3))
    assert (found.kind, found.module, found.where) == ("shattered", "pre", "model.py:3 y = detach(x)")
    assert found.evidence["calls"] == 3
    assert found.evidence["gradient"] == "missing"


def test_layers_of_a_kind_are_one_finding() -> None:
    """Where no line of the user's code calls them, as in a Sequential, by their class; else by the line."""
    calls = [replace(event("round", f"net.{i}", line=""), layer="Quantize") for i in range(3)]
    layers = [GradientFault(call, i > 0, {0.1: 0.0}, i == 0) for i, call in enumerate(calls)]
    (found,) = findings(replace(SOUND, faults=layers))
    assert (found.kind, found.module, found.evidence["calls"]) == ("shattered", "net.0", 3)
    assert found.evidence["parts"] == ["net.0", "net.1", "net.2"]
    within = [GradientFault(replace(event(name, "net.0", line=""), layer="Quantize"), True, {}, False) for name in "ab"]
    (found,) = findings(replace(SOUND, faults=within))
    assert found.evidence["operation"] == "a, b"
    at_a_line = [fault("round", f"net.{i}") for i in range(3)]
    assert len(findings(replace(SOUND, faults=at_a_line))) == 1
    others = [replace(one, event=replace(one.event, line=f"model.py:{i}")) for i, one in enumerate(at_a_line)]
    assert len(findings(replace(SOUND, faults=others))) == 3


def test_what_is_right_nearby_and_wrong_farther_off_has_vanished() -> None:
    (found,) = findings(replace(SOUND, faults=[fault("sigmoid", lost=False, nearby=True)]))
    assert found.kind == "vanishing"


def test_noise_counts_where_it_drowns_the_signal() -> None:
    drawn = replace(SOUND, sources=[event("rand", "drop")])
    assert findings(replace(drawn, noise=Noise(0.9, 0.0))) == []
    (found,) = findings(replace(drawn, noise=Noise(0.1, 0.2)))
    assert (found.kind, found.module, found.remedy) == ("stochastic", "drop", "EOT over 32 draws")


def test_one_of_a_few_networks_is_noise_too() -> None:
    """Three draws of four share their gradient by two thirds, which single draws pay for all the same."""
    drawn = replace(SOUND, sources=[event("randint", "")], noise=Noise(0.67, 0.1))
    (found,) = findings(drawn)
    assert (found.kind, found.remedy) == ("stochastic", "EOT over 2 draws")


def test_a_flat_loss_beside_a_margin_that_is_not() -> None:
    (found,) = findings(replace(SOUND, saturation=Saturation(0.9, 0.0, False)))
    assert (found.kind, found.module) == ("vanishing", "")
    assert "margin" in found.remedy


def test_a_missing_gradient_explains_a_flat_loss() -> None:
    flat = replace(SOUND, saturation=Saturation(1.0, 1.0, False), faults=[fault("detach")])
    assert [found.kind for found in findings(flat)] == ["shattered"]


def test_squashed_logits_where_nothing_else_could_have_cost_the_plain_attack_more() -> None:
    squashed = replace(SOUND, saturation=Saturation(0.0, 0.0, False, 0.7))
    (found,) = findings(squashed)
    assert (found.kind, found.evidence["saturated_logits"]) == ("vanishing", 0.7)
    assert findings(replace(squashed, saturation=Saturation(0.0, 0.0, False, 0.4))) == []
    assert findings(replace(squashed, sources=[event("rand")])) == []
    assert [one.kind for one in findings(replace(squashed, faults=[fault("detach")]))] == ["shattered"]


def test_labels_that_come_with_a_maximum_are_where_gradients_end() -> None:
    class Label(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.eye(4)[x.flatten(1).max(1)[1]]

    x = torch.tensor([[[[0.1, 0.9], [0.2, 0.3]]]]).repeat(4, 1, 1, 1)
    (found,) = findings(
        probe_gradients(Label(), x, torch.ones(4, dtype=torch.int64), 0.01, make_keys(0, range(4), "label"))
    )
    assert (found.kind, found.module, found.evidence["operation"]) == ("shattered", "", "max")


def test_one_cut_does_not_hide_another() -> None:
    class Coarse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(np.round(x.detach().numpy() * 16)) / 16

    class Levels(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 9).int().float() / 9

    model = nn.Sequential(Coarse(), Levels(), nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False)
    x = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    evidence = probe_gradients(model, x, model(x).argmax(1), 0.3, make_keys(0, range(16), "cuts"))
    assert {(found.kind, found.module) for found in findings(evidence)} == {("shattered", "0"), ("shattered", "1")}


class Rounded(nn.Module):
    """Rounds in the middle of its forward."""

    def forward(self, x: Tensor) -> Tensor:
        levels = 4
        rounded = (x * levels).round()
        return rounded.flatten(1) / levels


def test_a_finding_keeps_the_lines_of_code_around_it() -> None:
    x = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(Rounded(), nn.Linear(16, 3)).requires_grad_(False)
    (found,) = findings(probe_gradients(model, x, model(x).argmax(1), 0.3, make_keys(0, range(16), "lines")))
    first = int(found.where.split(" ")[0].split(":")[1]) - 2
    assert found.evidence["source"] == {
        str(first): "    def forward(self, x: Tensor) -> Tensor:",
        str(first + 1): "        levels = 4",
        str(first + 2): "        rounded = (x * levels).round()",
        str(first + 3): "        return rounded.flatten(1) / levels",
        str(first + 4): "",
    }


def test_a_finding_without_code_of_the_user_keeps_no_lines() -> None:
    (found,) = findings(replace(SOUND, faults=[fault("round")]))
    assert "source" not in found.evidence


def test_a_part_of_this_library_in_the_users_sequential_is_named_as_a_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(ReduceBitDepth(4), nn.Flatten(), nn.Linear(64, 10)).eval()
    x = torch.rand(16, 1, 8, 8)
    found = probe_gradients(model, x, model(x).argmax(1), 0.1, make_keys(0, range(16), "probe"))
    (finding,) = findings(found)
    assert (finding.kind, finding.module) == ("shattered", "0")
    assert finding.where == "layer 0 (ReduceBitDepth)"


def test_where_no_gradient_can_be_measured_nothing_is_blamed() -> None:
    class Stepped(nn.Module):
        """Moves its weights in each forward pass, so that torch cannot go back."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(16, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                answer: Tensor = self.last(self.first(x.flatten(1)).relu())
            with torch.no_grad():
                self.last.weight += 1e-4
                self.last.weight -= 1e-4
            return answer

    torch.manual_seed(0)
    model, x = Stepped().eval(), torch.rand(16, 1, 4, 4)
    found = probe_gradients(model, x, model(x).argmax(1), 0.1, make_keys(0, range(16), "probe"))
    assert not found.saturation.measured
    assert findings(found) == []


class Compressed(nn.Module):
    """Noise in the form of a tensor without a gradient; then the largest singular directions, under ``no_grad``."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rand_like(x.detach()).round()
        with torch.no_grad():
            matrix = x.flatten(1, 2)
            vectors = torch.linalg.eigh(matrix @ matrix.mT).eigenvectors[:, :, -4:]
            made: Tensor = (vectors @ (vectors.mT @ matrix)).flatten(1)
        return made


def test_views_that_no_operation_makes_are_of_the_tensor_in_their_memory() -> None:
    """``matrix.mT`` is an attribute: it comes from ``matrix``, and not from a tensor whose form alone is used."""
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = probe_gradients(Compressed(), x, torch.zeros(16, dtype=torch.int64), 0.1, make_keys(0, range(16), "mT"))
    assert [one.event.code for one in found.faults] == ["matrix = x.flatten(1, 2)"]
