"""One test for each rule of the first part of a verdict: is the gradient masked?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from unmask.records import AUDIT_SCHEMA, TABLE_SCHEMA, GradientCounts
from unmask.report import write
from unmask.report.run_folder import RunFolder
from unmask.report.table import Row, table
from unmask.report.verdict.masking import Masking
from unmask.report.verdict.sentences import MEANING, consequence, headline, sentence

if TYPE_CHECKING:
    from tests.report.conftest import Builder

AUDIT: dict[str, Any] = {"findings": [], "candidate_views": [], "parts": [], "lint": []}
SHATTERED = {"kind": "shattered", "module": "read", "where": "a.py:3 y", "evidence": {}, "remedy": "bpda"}
VANISHING = {**SHATTERED, "kind": "vanishing"}


def kept(count: int, of: int) -> list[int]:
    """The last ``count`` of the examples are robust."""
    return [0] * (of - count) + [1] * count


def judged(
    builder: Builder, plain: Sequence[float], adaptive: Sequence[float] = (), clean: Sequence[float] = (), **fields: Any
) -> Row:
    builder.case("a", ("plain", "bpda") if adaptive else ("plain",), **fields)
    builder.record("a", "clean", clean or [1] * len(plain), role="clean")
    builder.record("a", "plain", plain, role="plain")
    if adaptive:
        builder.record("a", "bpda", adaptive)
    return table(RunFolder.read(builder.write()))[-1]


@pytest.mark.parametrize(
    ("plain", "adaptive", "masking"),
    [
        ([1] * 10, [0] * 10, Masking.MASKED),
        ([1] * 10, kept(5, 10), Masking.MASKED),
        ([1] * 20, kept(11, 20), Masking.PARTLY_MASKED),
        ([1] * 30, kept(26, 30), Masking.INCONCLUSIVE),  # p = 1/16
        (kept(4, 20), kept(4, 20), Masking.NOT_FOUND),  # little is left, with nothing masked
        ([1] * 19 + [0], [0] + [1] * 19, Masking.NOT_FOUND),  # the union of two equal attacks is no evidence
        ([1] * 200, kept(191, 200), Masking.NOT_FOUND),  # significant, but under the margin
    ],
)
def test_masking_follows_from_the_paired_test(
    builder: Builder, plain: list[int], adaptive: list[int], masking: Masking
) -> None:
    assert judged(builder, plain, adaptive).masking is masking


def test_the_margin_is_a_share_of_the_clean_accuracy(builder: Builder) -> None:
    """Three points of a hundred are little, of twenty they are much."""
    plain, adaptive = kept(40, 200), kept(34, 200)
    assert judged(builder, plain, adaptive).masking is Masking.NOT_FOUND
    clean = kept(40, 200)
    assert judged(builder, plain, adaptive, clean, classes=["x"] * 1000).masking is Masking.PARTLY_MASKED


def test_no_verdict_on_gradients_is_said_to_be_robustness(builder: Builder) -> None:
    """An undefended detector that keeps 54 % has sound gradients, and that is all."""
    row = judged(builder, kept(54, 100), kept(54, 100))
    assert headline([row]) == "a keeps 54 % [43.7, 64] of 100 % under L∞ 0.25"
    assert consequence(row) == (
        "No gradient masking was found. The robust accuracy is what these attacks leave; a stronger attack may leave "
        "less."
    )
    page = write(builder.path).read_text()
    assert "keeps 54\N{NO-BREAK SPACE}% [43.7, 64] of" in page
    assert not {"stands", "weak", "falls"} & set(page.lower().split())


def test_more_than_the_clean_accuracy_is_no_share_of_it(builder: Builder) -> None:
    """A refusal counts as robust under attack, and as wrong on a clean image."""
    row = judged(builder, [1] * 40, [1] * 40, clean=[1] * 30 + [0] * 10)
    assert headline([row]) == "a keeps 100 % [91.2, 100] under L∞ 0.25; clean accuracy 75 %"


def test_masked_gradients_that_leave_nothing(builder: Builder) -> None:
    row = judged(builder, [1] * 40, [0] * 40)
    assert headline([row]) == "a keeps 0 % [0, 8.8] of 100 % under L∞ 0.25"
    assert consequence(row) == (
        "Its gradient is masked, so the 100 % that the plain attack leaves is no evidence of robustness. "
        "The model is not robust in this ball."
    )
    assert (row.reliable, row.upper_bound, row.warnings) == (True, False, ())


def test_six_images_are_too_few_even_for_a_significant_difference(builder: Builder) -> None:
    row = judged(builder, [1] * 6, [0] * 6)
    assert row.paired_test is not None
    assert row.paired_test.p < 0.05
    assert (row.masking, row.reason) == (Masking.INCONCLUSIVE, "too few images for any conclusion")
    assert row.warnings == ("6 images: too few for any conclusion; use at least 10 with --n",)
    assert judged(builder, [1] * 10, [0] * 10).masking is Masking.MASKED


def test_an_interval_of_more_than_fifty_points_bears_no_conclusion(builder: Builder) -> None:
    row = judged(builder, kept(6, 12), kept(6, 12))
    assert (row.masking, row.reliable, row.upper_bound) == (Masking.INCONCLUSIVE, False, False)
    assert row.warnings == (
        "the interval of the robust accuracy is 58 percentage points wide; use more images with --n",
    )
    assert judged(builder, [1] * 12, [1] * 12).masking is Masking.NOT_FOUND


def test_nothing_to_attack(builder: Builder) -> None:
    row = judged(builder, [0] * 20, [0] * 20, [0] * 20)
    assert row.masking is Masking.INCONCLUSIVE
    assert headline([row]) == "Inconclusive: no image is classified correctly, so there is nothing to attack"


def test_one_attack_alone_shows_masking_of_no_kind(builder: Builder) -> None:
    row = judged(builder, kept(30, 40))
    assert (row.masking, row.reason) == (Masking.INCONCLUSIVE, "there is no adaptive attack for a comparison")
    assert row.reliable, "the figure is what the attack leaves"


def test_a_plain_attack_that_breaks_all_shows_that_gradients_work(builder: Builder) -> None:
    row = judged(builder, kept(1, 40))
    assert row.masking is Masking.NOT_FOUND
    assert "the model's own gradient is sufficient to break it" in sentence(row)
    assert judged(builder, kept(3, 40)).masking is Masking.INCONCLUSIVE


def test_an_adaptive_attack_alone_is_compared_with_nothing(builder: Builder) -> None:
    builder.case("a", ("bpda",))
    builder.record("a", "clean", [1] * 20, role="clean")
    builder.record("a", "bpda", [0] * 20)
    (row,) = table(RunFolder.read(builder.write()))
    assert (row.masking, row.reason) == (Masking.INCONCLUSIVE, "there is no plain attack for a comparison")


def test_missing_gradients_that_cost_the_plain_attack_nothing_are_masked_in_part(builder: Builder) -> None:
    row = judged(builder, [0] * 20, [0] * 20, audit={**AUDIT, "findings": [SHATTERED]})
    assert row.masking is Masking.PARTLY_MASKED
    assert headline([row]) == ("a keeps 0 % [0, 16.8] of 100 % under L∞ 0.25")
    assert judged(builder, [0] * 20, [0] * 20, audit={**AUDIT, "findings": [VANISHING]}).masking is Masking.NOT_FOUND


def test_a_finding_of_unclear_effect_with_an_unclear_difference_is_inconclusive(builder: Builder) -> None:
    plain, adaptive = [1] * 30, kept(26, 30)
    assert judged(builder, plain, adaptive, audit={**AUDIT, "findings": [VANISHING]}).masking is Masking.INCONCLUSIVE
    assert judged(builder, plain, adaptive, audit=AUDIT).masking is Masking.NOT_FOUND


def test_a_stronger_attack_on_sound_gradients_shows_no_masking(builder: Builder) -> None:
    sound = judged(builder, kept(16, 20), kept(1, 20), audit=AUDIT)
    assert sound.masking is Masking.NOT_FOUND
    assert "the diagnosis found the gradients sound" in sentence(sound)
    hidden = judged(builder, kept(16, 20), kept(1, 20), audit={**AUDIT, "findings": [VANISHING]})
    assert hidden.masking is Masking.MASKED


@pytest.mark.parametrize("counted", ["by the diagnosis", "by the attack"])
def test_gradients_are_not_sound_where_the_plain_attack_had_none(builder: Builder, counted: str) -> None:
    diagnosed = counted == "by the diagnosis"
    builder.case("a", audit={**AUDIT, "gradients": {"plain": {"zero_gradient": 0.5}}} if diagnosed else AUDIT)
    builder.record("a", "clean", [1] * 20, role="clean")
    builder.record("a", "plain", [1] * 20, role="plain", gradients=None if diagnosed else GradientCounts(20, 10, 0))
    builder.record("a", "bpda", [0] * 20, gradients=GradientCounts(20, 0, 0))
    (row,) = table(RunFolder.read(builder.write()))
    assert row.masking is Masking.MASKED
    assert "Gradient masking found: the plain attack had no gradient on many" in write(builder.path).read_text()


def test_an_unfinished_run_is_incomplete(builder: Builder) -> None:
    builder.case("a", n=20)
    builder.record("a", "clean", [1] * 20, role="clean")
    builder.record("a", "plain", [1] * 20, role="plain")
    (row,) = table(RunFolder.read(builder.write()))
    assert (row.masking, row.complete) == (Masking.INCOMPLETE, False)


def test_every_answer_has_a_meaning_in_the_page_and_a_class_of_one_word(builder: Builder) -> None:
    judged(builder, [1] * 10, [0] * 10)
    page = write(builder.path).read_text()
    assert list(MEANING) == list(Masking)
    for kind, text in MEANING.items():
        assert text.replace("'", "&#39;") in page
        assert f'class="chip {kind.slug}"' in page
        assert " " not in kind.slug


def test_the_verdict_is_in_both_forms_of_the_data(builder: Builder) -> None:
    for audit, schema in ((None, TABLE_SCHEMA), ({**AUDIT, "findings": [SHATTERED]}, AUDIT_SCHEMA)):
        builder.cases.clear()
        judged(builder, [1] * 20, [0] * 20, audit=audit)
        write(builder.path)
        report = json.loads((builder.path / "report.json").read_text())
        assert report["schema"] == schema
        verdict = report["rows"][0] if schema == TABLE_SCHEMA else report
        told = [verdict[name] for name in ("masking", "warnings", "reliable", "upper_bound")]
        assert told == ["masked", [], True, False]
