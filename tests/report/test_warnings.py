"""One test for each reason why a robust accuracy is unreliable, and what it does to the verdict."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from unmask.records import GradientCounts, Record
from unmask.report import summary, write
from unmask.report.run_folder import RunFolder
from unmask.report.table import Row, table
from unmask.report.verdict.masking import Masking
from unmask.report.verdict.sentences import consequence, headline

if TYPE_CHECKING:
    from tests.report.conftest import Builder

N = 20
AUDIT: dict[str, Any] = {"findings": [], "candidate_views": [], "parts": [], "lint": []}
SHATTERED = {"kind": "shattered", "module": "", "where": "a.py:3 y", "evidence": {}, "remedy": "bpda"}


def finding(kind: str, **evidence: Any) -> dict[str, Any]:
    return {"kind": kind, "module": "net.0", "where": "a.py:7 z", "evidence": evidence, "remedy": "x = 255 * x"}


def only(builder: Builder) -> Row:
    (row,) = table(RunFolder.read(builder.write()))
    return row


def attacked(builder: Builder, left: float = 1, **record: Any) -> Row:
    """One plain attack that leaves a share."""
    builder.record("a", "clean", [1] * N, role="clean")
    builder.record("a", "plain", [1] * round(left * N) + [0] * round((1 - left) * N), role="plain", **record)
    return only(builder)


def forms(builder: Builder) -> dict[str, str]:
    page = write(builder.path).read_text()
    console = Console(width=300, file=io.StringIO())
    console.print(summary(builder.path))
    terminal = console.file.getvalue()  # type: ignore[attr-defined]
    return {"html": page, "markdown": (builder.path / "report.md").read_text(), "terminal": terminal}


def test_an_attack_without_gradients_proves_nothing_and_names_the_audit(builder: Builder) -> None:
    builder.case("a", ("plain",), setup=[finding("gradient", missing=1.0)])
    row = attacked(builder, gradients=GradientCounts(N, N, 0))
    assert row.warnings == (
        "the attack had no gradient on 100.0 % of the images; the first place where it ends: net.0: a.py:7 z; "
        "run `unmask audit`",
    )
    assert (row.masking, row.reliable, row.upper_bound) == (Masking.INCONCLUSIVE, False, True)
    assert headline([row]) == "a keeps at most 100 % [83.2, 100] of 100 % under L∞ 0.25"
    figures = {"html": '<div class="drop">', "markdown": "| case |", "terminal": "plain attack"}
    for form, text in forms(builder).items():
        assert text.index("unmask audit") < text.index(figures[form]), f"in {form} warnings stand above the figures"


def test_gradients_that_are_missing_here_and_there_are_no_reason(builder: Builder) -> None:
    builder.case("a", ("plain",))
    assert attacked(builder, gradients=GradientCounts(N, 1, 1)).reliable


def test_gradients_that_are_missing_on_half_as_many_images_as_are_left(builder: Builder) -> None:
    builder.case("a", ("plain",))
    row = attacked(builder, 0.1, gradients=GradientCounts(N, 1, 0))
    assert row.warnings == ("the attack had no gradient on 5.0 % of the images; run `unmask audit`",)


def test_nearly_nothing_left_is_reliable_but_does_not_show_that_gradients_work(builder: Builder) -> None:
    builder.case("a", ("plain",))
    row = attacked(builder, 0.05, gradients=GradientCounts(N, N // 2, 0))
    assert (row.reliable, row.masking) == (True, Masking.INCONCLUSIVE)
    row = attacked(builder, 0.05, gradients=GradientCounts(N, 0, 0))
    assert (row.reliable, row.masking) == (True, Masking.NOT_FOUND)


def test_gradients_with_nan(builder: Builder) -> None:
    builder.case("a", ("plain",), setup=[finding("gradient", zero=0.2), finding("gradient", **{"not finite": 0.5})])
    builder.cases[0]["setup"][1]["where"] = "a.py:9 sqrt"
    row = attacked(builder, gradients=GradientCounts(N, 0, N // 2))
    assert row.warnings == (
        "the attack's gradient had NaN or infinite elements on 50.0 % of the images; the first place where it becomes "
        "NaN: net.0: a.py:9 sqrt; run `unmask audit`",
    )


def test_one_attack_with_gradients_is_enough(builder: Builder) -> None:
    builder.case("a")
    builder.record("a", "clean", [1] * N, role="clean")
    builder.record("a", "plain", [1] * N, role="plain", gradients=GradientCounts(N, N, 0))
    builder.record("a", "bpda", [1] * N, gradients=GradientCounts(N, 0, 0))
    assert only(builder).reliable


def test_gradients_of_other_models_do_not_count(builder: Builder) -> None:
    builder.case("a", ("plain", "transfer"), audit={**AUDIT, "findings": [{**SHATTERED, "evidence": {}}]})
    builder.record("a", "clean", [1] * N, role="clean")
    builder.record("a", "plain", [1] * N, role="plain", gradients=GradientCounts(N, N, 0))
    builder.record("a", "transfer", [1] * N, gradients=GradientCounts(N, 0, 0))
    row = only(builder)
    assert row.warnings == ("the attack had no gradient on 100.0 % of the images",), "an audit is not named in an audit"
    assert row.masking is Masking.INCONCLUSIVE


@pytest.mark.parametrize("how", ["access", "passes", "audit"])
def test_black_box_attacks_alone_give_an_upper_bound(builder: Builder, how: str) -> None:
    fields: dict[str, Any] = {"access": {"square": "scores"}} if how == "access" else {}
    fields |= {"audit": {**AUDIT, "not_diagnosed_reason": "the model answers scores only"}} if how == "audit" else {}
    builder.case("a", ("square",), **fields)
    builder.record("a", "clean", [1] * 200, role="clean")
    builder.record("a", "square", [1] * 165 + [0] * 35, backwards=0 if how == "passes" else 4)
    row = only(builder)
    assert row.warnings == (
        "only black-box attacks were run; a white-box attacker may do better: the figure is an upper bound only",
    )
    assert headline([row]) == "a keeps at most 82.5 % [76.5, 87.5] of 100 % under L∞ 0.25"
    assert (row.masking, row.reliable, row.upper_bound) == (Masking.INCONCLUSIVE, False, True)
    for text in forms(builder).values():
        assert "upper bound only" in text


def test_black_box_attacks_that_leave_nothing_are_reliable_and_say_nothing_of_gradients(builder: Builder) -> None:
    builder.case("a", ("square",), access={"square": "scores"})
    builder.record("a", "clean", [1] * N, role="clean")
    builder.record("a", "square", [0] * N)
    row = only(builder)
    assert (row.masking, row.reliable) == (Masking.INCONCLUSIVE, True)
    assert row.reason == "only black-box attacks were run, which use no gradient"


def test_a_black_box_attack_beside_a_plain_one_is_a_comparison(builder: Builder) -> None:
    builder.case("a", ("plain", "square"), access={"plain": "white box", "square": "scores"})
    builder.record("a", "clean", [1] * N, role="clean")
    builder.record("a", "plain", [1] * N, role="plain")
    builder.record("a", "square", [1] * N)
    assert (only(builder).masking, only(builder).reliable) == (Masking.NOT_FOUND, True)


def chance(builder: Builder, lint: list[dict[str, Any]]) -> Row:
    """An audit of a model that gets one image in ten right, with a finding about its gradients."""
    audit = {**AUDIT, "findings": [SHATTERED], "lint": lint}
    builder.case("a", classes=[str(i) for i in range(10)], audit=audit)
    right = [1] * 2 + [0] * 18
    builder.record("a", "clean", right, role="clean")
    builder.record("a", "plain", right, role="plain")
    builder.record("a", "bpda", [0] * N)
    return only(builder)


def test_at_chance_the_first_warning_says_so_and_no_finding_is_shown(builder: Builder) -> None:
    row = chance(builder, [finding("batch")])
    assert row.warnings[0] == (
        "the clean accuracy, 10.0 % [1.2, 31.7], is not significantly above chance, 10.0 % for 10 classes"
    )
    assert (row.masking, row.upper_bound, row.reliable) == (Masking.INCONCLUSIVE, False, False)
    assert headline([row]) == "Inconclusive: the model is not shown to classify these images"
    for text in forms(builder).values():
        assert "a.py:3 y" not in text
    why = "the model is not shown to classify these images"
    page = " ".join(forms(builder)["html"].split())
    assert f"<h3>Gradients not diagnosed</h3> <p>{why.capitalize()}.</p>" in page
    assert f"Gradients are not diagnosed: {why}." in forms(builder)["terminal"]
    report = json.loads((builder.path / "report.json").read_text())
    assert report["findings"] == report["diagnosis"]["findings"] == []
    assert report["not_diagnosed_reason"] == why


def test_a_wrong_range_is_the_first_warning_with_its_remedy(builder: Builder) -> None:
    row = chance(builder, [finding("batch"), finding("range")])
    assert row.warnings[0].startswith("the model was made for images of another range than [0, 1] (")
    assert row.warnings[0].endswith("): x = 255 * x")
    assert row.warnings[1].startswith("the clean accuracy")
    assert "x = 255 * x" in forms(builder)["terminal"]


def test_a_range_found_when_the_model_was_loaded_for_an_attack(builder: Builder) -> None:
    builder.case("a", ("plain",), setup=[finding("range")])
    row = attacked(builder, 0)
    assert (row.masking, row.reliable, row.classified) == (Masking.INCONCLUSIVE, False, False)
    assert "Model setup warnings" in forms(builder)["html"]
    assert "Model setup warnings" in forms(builder)["terminal"]


def refused(builder: Builder, name: str, role: str, count: int) -> None:
    record = builder.record("a", name, [1] * N, role=role)
    examples = tuple(replace(one, refused=i < count) for i, one in enumerate(record.examples))
    builder.records[-1] = replace(record, examples=examples)


@pytest.mark.parametrize(("first", "second", "told"), [(N, N, 100), (N, N - 1, 95), (N, N - 3, 0)])
def test_an_attack_whose_candidates_are_nearly_all_refused_could_try_nothing(
    builder: Builder, first: int, second: int, told: int
) -> None:
    builder.case("a")
    builder.record("a", "clean", [1] * N, role="clean")
    refused(builder, "plain", "plain", first)
    refused(builder, "bpda", "adaptive", second)
    row = only(builder)
    warned = (
        f"the model refuses {told}.0 % of the candidates, so the attack could search almost nothing: "
        "the figure is an upper bound only; run `unmask audit`",
    )
    assert row.warnings == (warned if told else ())
    assert row.upper_bound == bool(told)
    if told:
        assert row.masking is Masking.INCONCLUSIVE
        assert all("could search almost nothing" in " ".join(text.split()) for text in forms(builder).values())


@pytest.mark.parametrize(("known", "told"), [(False, True), (True, False)])
def test_refusals_without_a_gradient_leave_an_upper_bound(builder: Builder, known: bool, told: bool) -> None:
    views = [{"view": "own gradient", "code": [], "robust_accuracy": 1.0, "margin": 0.0, "error": ""}]
    views[0]["refusal_gradient"] = known
    builder.case("a", audit={"findings": [], "lint": [], "budget": "quick", "candidate_views": views, "parts": []})
    builder.record("a", "clean", [1] * N, role="clean")
    record = builder.record("a", "bpda", [1] * N)
    changed = tuple(replace(one, refused=i < 4, predicted=2 if i < 4 else 1) for i, one in enumerate(record.examples))
    builder.records[-1] = replace(record, examples=changed)
    row = only(builder)
    assert any("refusal has no gradient" in text for text in row.warnings) == told
    assert row.upper_bound == told
    builder.record("a", "other", [0] * 4 + [1] * (N - 4))
    assert not any("refusal has no gradient" in text for text in only(builder).warnings), "another attack broke them"


def test_images_that_are_refused_without_an_attack_say_nothing_of_it(builder: Builder) -> None:
    builder.case("a")
    refused(builder, "clean", "clean", N - 1)
    refused(builder, "plain", "plain", N - 1)
    refused(builder, "bpda", "adaptive", N - 1)
    assert not [text for text in only(builder).warnings if "could try" in text]


def test_nearly_all_predictions_in_one_class(builder: Builder) -> None:
    """Half of the labels are class 2, and 19 of 20 answers."""
    builder.case("a")
    for name, role in (("clean", "clean"), ("plain", "plain"), ("bpda", "adaptive")):
        record: Record = builder.record("a", name, [1] * N, role=role)
        examples = tuple(
            replace(one, label=2 if i < N // 2 else 1, predicted=2 if i < N - 1 else 1, robust=float(i < N // 2))
            for i, one in enumerate(record.examples)
        )
        builder.records[-1] = replace(record, examples=examples)
    row = only(builder)
    assert row.warnings == (
        "the clean accuracy, 50.0 % [27.2, 72.8], is not significantly above chance, 33.3 % for 3 classes",
        "95.0 % of the predictions on clean images are class two, of the labels 50.0 %",
    )
    assert not row.classified


def test_candidates_outside_the_ball_are_counted(builder: Builder) -> None:
    builder.case("a")
    builder.record("a", "clean", [1] * N, role="clean")
    builder.record("a", "plain", [1] * N, role="plain", infeasible=3)
    builder.record("a", "bpda", [1] * N)
    row = only(builder)
    assert row.warnings == ("3 of 20 candidates of plain were outside the ball or box and count as the clean image",)
    assert (row.masking, row.reliable) == (Masking.INCONCLUSIVE, False)


def test_a_plain_attack_that_is_infeasible_proves_no_masking(builder: Builder) -> None:
    builder.case("a")
    builder.record("a", "clean", [1] * N, role="clean")
    builder.record("a", "plain", [1] * N, role="plain", infeasible=N)
    builder.record("a", "bpda", [0] * N)
    row = only(builder)
    assert row.paired_test is None
    assert (row.masking, row.reliable) == (Masking.INCONCLUSIVE, False)


@pytest.mark.parametrize("kind", ["batch", "unrepeatable"])
def test_mistakes_of_setup_make_any_figure_unreliable(builder: Builder, kind: str) -> None:
    builder.case("a", ("plain",), setup=[finding(kind)])
    row = attacked(builder, 0)
    assert (row.reliable, row.upper_bound, row.masking) == (False, True, Masking.INCONCLUSIVE)


def test_what_spoils_no_figure_is_no_warning(builder: Builder) -> None:
    builder.case("a", ("plain",), setup=[finding("adapted")])
    row = attacked(builder, 0)
    assert (row.reliable, row.masking) == (True, Masking.NOT_FOUND)
    assert "Model setup warnings" in forms(builder)["html"]


def test_a_clean_accuracy_that_an_attack_at_eps_0_does_not_find(builder: Builder) -> None:
    builder.case("a", ("plain",))
    builder.record("a", "plain", [0] * N, role="control", eps=0.0, control="eps 0")
    row = attacked(builder, 0.5)
    assert row.warnings == ("the accuracy at eps 0 is 0%, but the clean accuracy is 100%",)


def test_the_accuracy_at_eps_0_is_compared_on_its_own_examples(builder: Builder) -> None:
    builder.case("a", ("plain",))
    right = [1] * (N // 2) + [0] * (N - N // 2)
    builder.record("a", "clean", right, role="clean")
    builder.record("a", "plain", right, role="plain")
    builder.record("a", "plain", [1] * (N // 2), role="control", eps=0.0, control="eps 0")
    assert not any("eps 0" in warning for warning in only(builder).warnings)


def test_masking_that_is_proven_stays_so_beside_an_upper_bound(builder: Builder) -> None:
    builder.case("a", ("plain", "adaptive"), audit={**AUDIT, "findings": [SHATTERED]})
    builder.record("a", "clean", [1] * N, role="clean")
    builder.record("a", "plain", [1] * N, role="plain")
    builder.record("a", "adaptive", [1] * 4 + [0] * 16)
    builder.record("a", "best view", [1] * N, role="control", control="unbounded")
    row = only(builder)
    assert (row.masking, row.reliable) == (Masking.MASKED, False)
    assert headline([row]) == "a keeps at most 20 % [5.7, 43.7] of 100 % under L∞ 0.25"
    assert consequence(row) == (
        "Its gradient is masked, so the 100 % that the plain attack leaves is no evidence of robustness. "
        "Its robust accuracy is an upper bound only: see the warnings."
    )


def test_a_missing_gradient_with_an_unreliable_figure_is_inconclusive_and_still_shown(builder: Builder) -> None:
    builder.case("a", audit={**AUDIT, "findings": [SHATTERED], "lint": [finding("batch")]})
    builder.record("a", "clean", [1] * N, role="clean")
    builder.record("a", "plain", [1] * N, role="plain")
    builder.record("a", "bpda", [1] * N)
    assert only(builder).masking is Masking.INCONCLUSIVE
    terminal = forms(builder)["terminal"]
    assert "Gradients are missing or wrong in places." in terminal
    assert "a.py:3 y" in terminal


def test_setup_that_is_no_finding_is_a_broken_run(builder: Builder) -> None:
    builder.case("a", setup=[{"kind": 1}])
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        RunFolder.read(builder.write())


def test_an_attack_on_another_ball_is_named_everywhere(builder: Builder) -> None:
    builder.case("a", ("plain",))
    builder.record("a", "plain", [1, 1, 0], role="control", eps=1.0, control="unbounded")
    builder.record("a", "noise", [1, 1, 1], role="control")
    row = attacked(builder, eps=0.0)
    why = "plain was run at L∞ 0 raw, not at L∞ 0.25 raw, which the figure is about"
    assert row.warnings == (why,)
    assert (row.masking, row.reliable, row.upper_bound) == (Masking.INCONCLUSIVE, False, True)
    shown = forms(builder)
    assert all(why in text for text in shown.values())
    assert "| plain at L∞ 0 raw |" in shown["markdown"]
    assert "- unbounded at L∞ 1 raw 66.7 %" in shown["markdown"]
    assert "- noise 100.0 %" in shown["markdown"]
    assert "plain at L∞ 0 raw<small>" in shown["html"]
    assert "unbounded at L∞ 1 raw<small>n = 3" in shown["html"]


def test_images_of_one_class_are_a_reason_to_say_so_and_no_doubt_of_the_attack(builder: Builder) -> None:
    builder.case("a", ("plain",), setup=[{**finding("one class"), "where": "all 20 images are of class one"}])
    row = attacked(builder, 0.5)
    assert row.warnings == ("all 20 images are of class one: x = 255 * x",)
    assert (row.reliable, row.upper_bound) == (False, False)


def test_a_search_that_failed_is_named_with_the_error(builder: Builder) -> None:
    builder.case("a", ("plain",))
    row = attacked(builder, failures={'bpda("net")': "IndexError: row 7"})
    assert row.warnings == (
        'plain: the search through bpda("net") failed on some of the images, and ended there: IndexError: row 7',
    )
    assert (row.reliable, row.upper_bound) == (False, True)
    for form, text in forms(builder).items():
        assert "IndexError: row 7" in text, form


def test_a_search_that_failed_does_not_matter_where_the_others_leave_nothing(builder: Builder) -> None:
    builder.case("a", ("plain",))
    assert attacked(builder, 0, failures={'bpda("net")': "IndexError: row 7"}).warnings == ()
