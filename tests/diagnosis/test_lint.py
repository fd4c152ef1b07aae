"""Each mistake by itself, in a model that has no other; and none where there is none."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo import ZOO
from unmask.cases import find_case
from unmask.data import load
from unmask.diagnosis.behaviour.determinism import left_in_training
from unmask.diagnosis.lint import lint
from unmask.randomness import make_keys
from unmask.records import Finding

NET = find_case("plain-digits").load()
X, Y = load("digits", n=16).batch()
KEYS = make_keys(0, range(16), "lint")


class Answer(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(x)


def linted(model: nn.Module | Callable[[Tensor], Tensor]) -> list[Finding]:
    return lint(model if isinstance(model, nn.Module) else Answer(model), X, Y, KEYS)


def only(model: nn.Module | Callable[[Tensor], Tensor]) -> Finding:
    (finding,) = linted(model)
    return finding


@pytest.mark.parametrize("name", ["Itself", "SmallLogits", "Blur", "Clipped", "Dropout", "InlineRound"])
def test_a_model_that_was_made_ready_has_no_finding(name: str) -> None:
    assert linted(ZOO[name].build(NET).eval()) == []


def test_log_probabilities_are_as_good_as_logits() -> None:
    assert linted(lambda x: NET(x).log_softmax(1)) == []


def test_probabilities_with_the_share_that_has_saturated() -> None:
    assert only(lambda x: NET(x).softmax(1)).kind == "probabilities"
    hot = only(lambda x: (10 * NET(x)).softmax(1))
    assert hot.kind == "probabilities"
    assert hot.evidence["exactly 1"] > 0.5


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: F.one_hot(NET(x).argmax(1), 10).float(),
        lambda x: 10.0 * F.one_hot(NET(x).argmax(1), 10),
        lambda x: torch.stack([F.one_hot(NET(x.roll(s, 3)).argmax(1), 10) for s in (-1, 0, 1)]).sum(0).float(),
    ],
)
def test_labels_and_votes_are_no_scores(answer: Callable[[Tensor], Tensor]) -> None:
    assert only(answer).kind == "labels"


def test_types_and_their_ties() -> None:
    assert only(lambda x: NET(x).double()).evidence == {"dtype": "float64", "ties": 0.0}
    assert only(lambda x: (NET(x) * 0).half()).evidence["ties"] == 1.0


def test_weights_of_another_type_are_named_by_their_part() -> None:
    torch.manual_seed(0)

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 10).double()

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.head(x.flatten(1).double())
            return answer.float()

    found = only(Half().eval())
    assert (found.kind, found.module, found.evidence["dtype"]) == ("dtype", "head", "float64")


@pytest.mark.parametrize(
    ("undo", "wanted"),
    [(lambda x: x / 255, "[0, 255]"), (lambda x: (x + 1) / 2, "[-1, 1]")],
)
def test_a_model_made_for_another_range(undo: Callable[[Tensor], Tensor], wanted: str) -> None:
    found = only(lambda x: NET(undo(x)))
    assert found.kind == "range"
    assert wanted in found.where
    assert found.evidence[f"of {wanted}"] > found.evidence["accuracy"] + 0.5


def test_a_table_without_places_for_other_ranges_is_no_mistake() -> None:
    table = torch.linspace(0, 1, 256)
    assert linted(lambda x: NET(table[(x * 255).long()])) == []


def test_nan_is_found_where_no_image_of_the_data_is() -> None:
    class Divide(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.amax((1, 2, 3), keepdim=True)

    found = only(nn.Sequential(Divide(), NET).eval())
    assert (found.kind, found.module, found.evidence) == ("not finite", "0", {"black images": 1.0})


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0) + 0.3


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centre, self.net = Mean(), NET

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(self.centre(x))
        return answer


def test_dependence_on_the_batch_at_its_part() -> None:
    found = only(Head().eval())
    assert (found.kind, found.module) == ("batch", "centre")
    assert found.evidence["change"] > 0.1
    inline = only(lambda x: NET(2 * x * (1 + x.mean())))
    assert (inline.kind, inline.module) == ("batch", "")


def test_dependence_on_the_place_in_the_batch() -> None:
    sign = torch.where(torch.arange(64) % 2 == 0, 1.0, -1.0)
    found = only(lambda x: NET(x) * sign[: len(x), None])
    assert found.kind == "batch"
    assert found.evidence["other answers"] > 0.4


def test_batch_norm_left_in_training_mode_is_told_twice_and_left_as_it_was() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(144, 10)).eval()
    norm.train()
    before = norm.state_dict()["running_mean"].clone()
    found = {finding.kind: finding for finding in linted(model)}
    assert {kind: finding.module for kind, finding in found.items()} == {"training mode": "1", "batch": "1"}
    assert torch.equal(norm.state_dict()["running_mean"], before)


def test_training_mode_of_all_of_it_with_what_it_does() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(64, 10))
    evaluated = copy.deepcopy(model).eval()
    assert left_in_training(model, evaluated, X, KEYS).evidence["other answers"] > 0.2
    assert left_in_training(evaluated, evaluated, X, KEYS).evidence["other answers"] == 0.0


def test_randomness_that_torch_draws_and_that_it_does_not() -> None:
    found = only(lambda x: NET(x + 0.3 * torch.randn_like(x)))
    assert found.kind == "random"
    assert found.evidence["other answers"] > 0
    assert "change" in found.evidence
    draw = np.random.default_rng(0)
    found = only(lambda x: NET(x + 0.3 * torch.from_numpy(draw.normal(size=x.shape)).float()))
    assert found.kind == "unrepeatable"


def test_a_rows_own_noise_is_no_dependence_on_the_batch() -> None:
    assert {finding.kind for finding in linted(ZOO["WeakNoise"].build(NET).eval())} == {"random"}


def test_noise_of_numpy_is_no_dependence_on_the_batch_and_does_not_hide_one() -> None:
    """It is not drawn for an image but for a place among the others."""

    def noisy(x: Tensor) -> Tensor:
        return x + 0.1 * torch.from_numpy(np.random.normal(size=x.shape)).float()

    assert {finding.kind for finding in linted(lambda x: NET(noisy(x)))} == {"random"}
    sign = torch.where(torch.arange(64) % 2 == 0, 1.0, -1.0)
    assert {finding.kind for finding in linted(lambda x: NET(noisy(x)) * sign[: len(x), None])} == {"random", "batch"}


def test_noise_of_weights_is_no_dependence_on_the_batch() -> None:
    """As many channels as there are rows: their draws are keyed by the rows."""
    weights = torch.rand(16, 64, generator=torch.Generator().manual_seed(0))

    def noisy(x: Tensor) -> Tensor:
        return x.flatten(1) @ (weights + 0.3 * torch.randn_like(weights)).T

    assert {finding.kind for finding in linted(noisy)} == {"random"}
