"""Models that answer otherwise between the levels of a grid than on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import unmask
from unmask.auditing.grids import gridded, on_grids
from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView
from unmask.auditing.views.pilot_result import PilotResult
from unmask.cases import find_case


class AnswersAsBefore(nn.Module):
    """Off the grid of the digits, k/16, the answer is that for a coarse image; nothing is refused. Truth: 4 %."""

    def __init__(self) -> None:
        super().__init__()
        self.network = find_case("plain-digits").load()

    def forward(self, x: Tensor) -> Tensor:
        off = (x * 16 - (x * 16).round()).abs().flatten(1).amax(1, keepdim=True)
        coarse = self.network((x * 2).round() / 2)
        answer: Tensor = torch.where(off > 1e-3, coarse, self.network(x))
        return answer


def test_a_model_that_is_another_off_the_grid_is_attacked_on_it() -> None:
    report = unmask.audit(AnswersAsBefore().eval(), "digits", unmask.Linf(0.15), n=24, budget="quick")
    assert report.accuracy.plain is not None
    assert report.accuracy.plain.value >= 0.9
    assert report.accuracy.adaptive.value <= 0.08
    assert report.masking == "masked"
    assert "Snapped(16, attack)" in [finding.remedy for finding in report.findings]
    assert "unmask.Snapped(16, unmask." in report.script


def tried(left: float, way: CandidateView = OWN_GRADIENT, levels: int = 0, failure: str = "") -> PilotResult:
    return PilotResult(way, left, 0.0, 1.0, x_adv=torch.zeros(32, 1, 1, 1), levels=levels, error=failure)


def test_what_leaves_clearly_less_on_a_grid_is_worth_it() -> None:
    asked: list[tuple[list[CandidateView], int]] = []

    def attempt(views: list[CandidateView], levels: int) -> list[PilotResult]:
        asked.append((views, levels))
        return [tried(0.4 if levels == 16 else 0.87, way, levels) for way in views]

    other, refused = CandidateView(("other",)), CandidateView(("refused",))
    before = [tried(0.9), tried(0.95, other), tried(1.0, refused, failure="RuntimeError")]
    worth = on_grids(before, 16, attempt)
    assert asked == [([OWN_GRADIENT, other], 16), ([OWN_GRADIENT, other], 255)]
    assert [(one.view, one.levels) for one in worth] == [(OWN_GRADIENT, 16), (other, 16)]  # not 0.87
    (finding,) = gridded(before, worth)
    assert finding.evidence == {"robust_accuracy": 0.9, "left on the grid": 0.4}


def test_images_of_8_bit_have_one_grid_and_a_broken_model_needs_none() -> None:
    asked: list[int] = []

    def attempt(views: list[CandidateView], levels: int) -> list[PilotResult]:
        asked.append(levels)
        return [tried(0.5, levels=levels)]

    assert on_grids([tried(0.52)], 255, attempt) == []
    assert asked == [255]
    assert on_grids([tried(0.05)], 255, attempt) == []
    assert asked == [255]
    assert gridded([tried(0.9)], []) == []


def test_a_difference_of_few_images_is_no_finding() -> None:
    """With 16 images one of them is more than 5 points."""

    def result(left: float, count: int, levels: int = 0) -> PilotResult:
        return PilotResult(OWN_GRADIENT, left, 0.0, 1.0, x_adv=torch.zeros(count, 1, 1, 1), levels=levels)

    def worth(before: float, after: float, count: int) -> int:
        return len(on_grids([result(before, count)], 255, lambda views, levels: [result(after, count, levels)]))

    assert worth(1 / 16, 0.0, 16) == worth(4 / 16, 0.0, 16) == 0
    assert worth(5 / 16, 0.0, 16) == worth(1.0, 0.0, 5) == worth(6 / 100, 0.0, 100) == 1
    assert worth(5 / 128, 0.0, 128) == 0
