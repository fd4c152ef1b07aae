"""Each sign of a failing attack by itself, on verdicts made by hand; and none on those of an attack that works."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from unmask.records import Example
from unmask.report import summary, write
from unmask.report.verdict.finding_sentences import source
from unmask.report.verdict.indicators import Indicator, IndicatorEvidence, judge

if TYPE_CHECKING:
    from tests.report.conftest import Builder

N = 20


def verdicts(robust: Sequence[float], screened: Sequence[float] | None = None) -> dict[int, Example]:
    pairs = zip(robust, screened or robust, strict=True)
    return {i: Example(i, 1, 1 if r else 2, r, r > 0.5, r == 1, s, 0.1) for i, (r, s) in enumerate(pairs)}


def stand(count: int, of: int = N) -> dict[int, Example]:
    """The first ``count`` stand."""
    return verdicts([float(i < count) for i in range(of)])


WORKS = IndicatorEvidence(
    attack=stand(8),
    one_step=stand(14),
    unbounded=stand(0),
    larger=stand(3),
    noise=stand(18),
    doubled=stand(8),
    scores={"black-box": stand(12), "transfer": stand(15)},
    zero_gradient=0.0,
    noise_fraction=0.4,
    fooled_view_only=[0.0] * N,
)


def failed(known: IndicatorEvidence) -> dict[str, Indicator]:
    return {one.name: one for one in judge("adaptive", known) if one.failed}


def test_an_attack_that_works_shows_no_sign() -> None:
    answers = judge("adaptive", WORKS)
    assert not [one for one in answers if one.failed]
    assert len({one.name for one in answers}) == len(answers) == 11
    assert {one.of for one in answers} == {"adaptive"}


@pytest.mark.parametrize(
    ("change", "name", "value", "why"),
    [
        (
            {"one_step": stand(2)},
            "one step beats many",
            0.3,
            "one step breaks 30 percentage points more of the examples than the whole search",
        ),
        (
            {"scores": {"black-box": stand(1)}},
            "black-box beats gradients",
            0.35,
            "break 35 percentage points more of the examples than gradients",
        ),
        (
            {"scores": {"transfer": stand(2)}},
            "transfer beats gradients",
            0.3,
            "transfer attacks break 30 percentage points more",
        ),
        ({"unbounded": stand(5)}, "unconstrained failure", 0.25, "without a bound is 25%"),
        ({"noise": stand(5)}, "noise beats gradients", 0.15, "random points break 15% of the examples"),
        ({"larger": stand(14)}, "larger eps does not help", 0.3, "is 70% in a ball of twice the size, and 40% in"),
        ({"zero_gradient": 0.5}, "unavailable gradients", 0.5, "50% of the images have no gradient"),
        ({"noise_fraction": 0.9}, "unstable predictions", 0.9, "90% of the gradient is noise"),
        ({"doubled": stand(2)}, "incomplete optimisation", 0.3, "twice the steps break 30 percentage points more"),
        ({"fooled_view_only": [1.0] * 5 + [0.0] * 15}, "transfer failure", 0.25, "25% of the examples fool the view"),
    ],
)
def test_each_sign(change: dict[str, object], name: str, value: float, why: str) -> None:
    (found,) = failed(replace(WORKS, **change)).values()  # type: ignore[arg-type]
    assert found.name == name
    assert found.value == pytest.approx(value)
    assert why in found.why


def test_success_that_is_lost_on_the_way() -> None:
    lost = verdicts([1.0] * 3 + [0.0] * 17, [0.0] * N)
    assert failed(replace(IndicatorEvidence(lost)))["silent success"].value == pytest.approx(0.15)
    assert not failed(IndicatorEvidence(verdicts([0.25] * N, [0.0] * N))), "a random model is right now and then"


def test_no_growth_counts_only_where_no_bound_does_not_help_either() -> None:
    tiny = replace(WORKS, attack=stand(19), larger=stand(19), one_step=None, scores=None, doubled=None)
    assert not failed(tiny)
    assert set(failed(replace(tiny, unbounded=stand(10)))) == {"unconstrained failure", "larger eps does not help"}


@pytest.mark.parametrize("few", [{"one_step": stand(5)}, {"doubled": stand(5)}, {"scores": {"black-box": stand(5)}}])
def test_what_chance_explains_is_no_sign(few: dict[str, object]) -> None:
    """Three examples of twenty more: p = 1/8."""
    assert not failed(replace(WORKS, **few))  # type: ignore[arg-type]


def test_controls_are_compared_on_the_examples_that_they_have() -> None:
    first = stand(2, of=8)
    assert failed(replace(WORKS, one_step=first))["one step beats many"].value == pytest.approx(6 / 8)


def test_what_is_not_known_is_not_asked() -> None:
    assert [one.name for one in judge("plain", IndicatorEvidence(stand(3)))] == ["silent success"]


def failing(builder: Builder, left: int) -> Path:
    """An audit whose gradients find nothing, while scores leave a few."""
    told = {
        "findings": [],
        "lint": [],
        "candidate_views": [{"view": "own gradient", "code": [], "robust_accuracy": 1.0, "margin": 0.0, "error": ""}],
        "parts": [],
        "draws": 1,
        "gradients": {
            "plain": {"zero_gradient": 1.0, "noise_fraction": 0.0},
            "adaptive": {"zero_gradient": 1.0, "noise_fraction": 0.0},
        },
    }
    builder.case("seen", ("plain", "adaptive", "black-box"), audit=told)
    builder.record("seen", "clean", [1] * N, role="clean")
    builder.record("seen", "plain", [1] * N, role="plain")
    builder.record("seen", "adaptive", [1] * N)
    builder.record("seen", "black-box", [0] * (N - left) + [1] * left)
    builder.record("seen", "best view", [1] * N, role="control", control="unbounded")
    builder.record("seen", "plain", [1] * N, role="control", control="plain unbounded")
    return builder.write()


def test_a_figure_of_zero_is_reliable(builder: Builder, tmp_path: Path) -> None:
    write(failing(builder, left=0))
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["reliable"], report["warnings"]) == (True, [])
    assert [one["name"] for one in report["indicators"] if one["failed"]]


def test_warnings_stand_above_the_figures_in_every_form(builder: Builder, tmp_path: Path) -> None:
    page = write(failing(builder, left=4)).read_text()
    report = json.loads((tmp_path / "report.json").read_text())
    signs = {(one["name"], one["of"]) for one in report["indicators"] if one["failed"]}
    names = {"black-box beats gradients", "unconstrained failure", "unavailable gradients"}
    assert signs == {(name, of) for name in names for of in ("plain", "adaptive")}
    assert (report["reliable"], report["upper_bound"], report["masking"]) == (False, True, "masked")
    assert len(report["warnings"]) == 3
    assert "<li>black-box attacks break 80 percentage points more of the examples than gradients</li>" in page
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(summary(tmp_path))
    assert console.export_text().lstrip().startswith("Unreliable result:")


def test_blank_lines_at_the_ends_of_the_code_around_a_finding_are_left_out() -> None:
    lines = {"1": "", "2": "x = 1", "3": "", "4": "y = 2", "5": "", "6": ""}
    found = source({"where": "a.py:4 y", "evidence": {"source": lines}})
    assert found == [("2", "x = 1", False), ("3", "", False), ("4", "y = 2", True)]
    assert source({"where": "a.py:4 y", "evidence": {}}) == []
