"""Which view an audit prefers, of several that were tried."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from unmask.auditing import pilot
from unmask.auditing.pilot_findings import remedy
from unmask.auditing.plan import plan_audit
from unmask.auditing.probe_data import Images
from unmask.auditing.request import AuditRequest
from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView, through
from unmask.auditing.views.pilot_result import PilotResult, rank
from unmask.auditing.views.view_selection import PilotSearch
from unmask.cases import find_case
from unmask.data import load
from unmask.evaluation.models.targets import Target
from unmask.gradients.bpda import ModelView, bpda
from unmask.threats import Linf
from unmask.types import Output

DEAR = CandidateView(("dear",), lambda model: model)
NET = find_case("plain-digits").load()
DATA, DATA48 = load("digits", n=16), load("digits", n=48)


def test_views_are_sorted_by_what_they_leave_then_by_the_larger_margin_that_they_reach() -> None:
    failed = PilotResult(OWN_GRADIENT, 1.0, -float("inf"), 0.0, error="no gradient")
    far, near, weak = (
        PilotResult(OWN_GRADIENT, left, loss, 1.0) for left, loss in ((0.1, 2.0), (0.1, -2.0), (0.2, 3.0))
    )
    standing = PilotResult(OWN_GRADIENT, 1.0, -5.0, 1.0)
    assert rank([failed, weak, near, standing, far]) == [far, near, weak, standing, failed]


@pytest.mark.parametrize(
    ("cheap", "dear", "order"),
    [
        (0.05, 0.0, ["own gradient"]),  # little enough is left: nothing dear is tried
        (0.06, 0.0, ["dear", "own gradient"]),
        (0.3, 0.24, ["dear", "own gradient"]),
        (0.3, 0.26, ["own gradient", "dear"]),  # tried, but not worth what it costs
    ],
)
def test_a_dear_view_is_tried_where_over_five_percent_are_left_and_preferred_if_it_leaves_five_percent_less(
    monkeypatch: pytest.MonkeyPatch, cheap: float, dear: float, order: list[str]
) -> None:
    def tried(self: PilotSearch, views: Sequence[CandidateView], levels: int = 0) -> list[PilotResult]:
        return [PilotResult(way, dear if way == DEAR else cheap, 0.0, 1.0) for way in views]

    monkeypatch.setattr(PilotSearch, "__call__", tried)
    monkeypatch.setattr(pilot, "expensive_views", lambda *given: [DEAR])
    planned, _ = plan_audit(AuditRequest("net", Target(NET), DATA, Linf(0.1), 16, budget="quick"))
    assert [one["view"] for one in planned.case_info["audit"]["candidate_views"]] == order


def test_a_view_that_fails_on_fewer_images_is_left_out() -> None:
    def view(model: nn.Module) -> nn.Module:
        def run(model: nn.Module, x: Tensor) -> Tensor:
            if torch.equal(x[-1], x[-2]):  # as where a batch is filled up
                raise IndexError("equal images")
            answer: Tensor = model(x)
            return answer

        return ModelView(model, run)

    images = Images(DATA48.batch()[0], DATA48.batch()[1], torch.arange(48))
    (found,) = PilotSearch(Target(NET), Linf(0.1), images, 0)([CandidateView(("view",), view)])
    assert found.error == "IndexError: equal images"


def test_many_views_are_tried_on_few_images_and_the_best_on_the_others_too() -> None:
    """A view of fewer pixels leaves more. What the best come to is what they come to on all images at once."""
    seen: list[tuple[str, int]] = []

    class Counted(PilotSearch):
        def _try(self, images: Images, candidate: CandidateView, levels: int) -> PilotResult:
            seen.append((candidate.name, len(images)))
            return super()._try(images, candidate, levels)

    def of_rows(count: int) -> CandidateView:
        def run(model: nn.Module, x: Tensor) -> Tensor:
            answer: Tensor = model(torch.cat([x[:, :, :count], x[:, :, count:].detach()], 2))
            return answer

        return CandidateView((f"{count} rows",), lambda model: ModelView(model, run))

    views = [of_rows(1), OWN_GRADIENT, of_rows(2), of_rows(6), of_rows(7)]
    images = Images(DATA48.batch()[0], DATA48.batch()[1], torch.arange(48))
    whole = PilotSearch(Target(NET), Linf(0.1), images, 0)(views)
    found = Counted(Target(NET), Linf(0.1), images, 0, few=8)(views)
    best = ["own gradient", "6 rows", "7 rows"]
    assert [one.name for one in found] == [one.name for one in views]
    assert {name for name, count in seen if count == 40} == {*best}
    assert [one.complete for one in found] == [one.name in best for one in found]
    assert {one.name for one in rank(found)[:3]} == {*best}
    for one, other in zip(found, whole, strict=True):
        assert not one.complete or one.robust_accuracy == pytest.approx(other.robust_accuracy)
        assert one.x_adv is not None
        assert other.x_adv is not None
        assert torch.allclose(one.x_adv, other.x_adv[: len(one.x_adv)], atol=1e-5)


class OffGrid(nn.Module):
    """Its logits are half as large at images that lie between the levels of 8 bit."""

    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, x: Tensor) -> Tensor:
        off = ((255 * x - (255 * x).round()).abs() > 1e-3).flatten(1).any(1)
        answer: Tensor = self.net(x) * (1 - 0.5 * off.float())[:, None]
        return answer


class RefusesOffGrid(nn.Module):
    """It refuses images between the levels of 8 bit; beside its logits a refusal is a small number."""

    def forward(self, x: Tensor) -> Output:
        off = ((255 * x - (255 * x).round()).abs() > 1e-3).flatten(1).any(1)
        return Output(100 * NET(x), off)


def test_a_grid_is_tried_where_the_model_answers_otherwise_on_it() -> None:
    """The images are of 8 bit."""
    images = Images((255 * DATA.batch()[0]).round() / 255, DATA.batch()[1], torch.arange(16))
    for model, differs in ((NET, False), (OffGrid(), True), (RefusesOffGrid(), True)):
        search = PilotSearch(Target(model), Linf(0.1), images, 0)
        (found,) = search([OWN_GRADIENT])
        assert search.differs(found, 255) is differs


@pytest.mark.parametrize(
    ("left", "says"),
    [
        (0.5, 'bpda("0") (leaves 50 %, the own gradient 75 %)'),
        (0.75, "none of the views that were tried leaves less than the model's own gradient (75 %)"),
    ],
)
def test_the_remedy_is_a_view_that_leaves_less_than_the_own_gradient(left: float, says: str) -> None:
    own, other = PilotResult(OWN_GRADIENT, 0.75, 1.0, 1.0), PilotResult(through(bpda, "0"), left, 1.0, 1.0)
    assert remedy(min(other, own, key=lambda one: one.robust_accuracy), [other, own]) == says


def test_a_view_of_a_model_without_a_gradient_is_a_remedy_whatever_it_leaves() -> None:
    own, other = PilotResult(OWN_GRADIENT, 1.0, 0.0, 0.0, error="none"), PilotResult(through(bpda, "0"), 1.0, 1.0, 1.0)
    assert remedy(other, [other, own]) == 'bpda("0") (leaves 100 %)'
