"""The parts of a report's page, from small runs whose numbers were counted by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.report.conftest import Builder
from tests.report.test_forms import Page, grey
from unmask.report import write
from unmask.report.breakdown.confusion import confusion
from unmask.report.breakdown.per_class import per_class
from unmask.report.breakdown.perturbations import perturbations
from unmask.report.formatting import date, eps
from unmask.report.plots.pictures import gallery
from unmask.report.run_folder import RunFolder
from unmask.report.table import table
from unmask.report.verdict.controls import controls
from unmask.report.verdict.finding_sentences import effect, source, winning_view
from unmask.report.verdict.sentences import consequence

N = 12
FINDING = {
    "kind": "shattered",
    "module": "encode",
    "where": "net.py:3 return x.round()",
    "evidence": {
        "operation": "round",
        "gradient": "wrong",
        "fidelity": {"0.001": 0.25, "0.1": 0.0},
        "source": {"2": "def f(x):", "3": "    return x.round()  # <b>", "4": ""},
    },
    "remedy": "bpda: encode=identity",
}
AUDIT = {
    "budget": "quick",
    "findings": [FINDING],
    "lint": [],
    "candidate_views": [
        {"view": "broken", "code": [], "robust_accuracy": 1.0, "margin": None, "error": "no such part"},
        {"view": 'bpda("encode")', "code": ['bpda("encode")'], "robust_accuracy": 0.125, "margin": 1.0, "error": ""},
        {"view": "own gradient", "code": [], "robust_accuracy": 1.0, "margin": -1.0, "error": ""},
    ],
    "parts": [{"part": "encode", "type": "Encode", "calls": 1, "fidelity": [0.0, 0.0]}],
    "draws": 1,
    "per_draw_passes": False,
    "gradients": {},
}


def folder(builder: Builder) -> RunFolder:
    return RunFolder.read(builder.write())


@pytest.fixture
def audited(builder: Builder) -> Path:
    """A masked model: a finding, controls of which one fails, an indicator that is seen."""
    builder.case("my/models/net.onnx", ("plain", "adaptive"), audit=AUDIT, claimed=None, obfuscation=[], citation="")
    name = "my/models/net.onnx"
    builder.record(name, "clean", [1] * N, role="clean")
    builder.record(name, "plain", [1] * N, role="plain")
    builder.record(name, "adaptive", [0] * N, images=True)
    builder.record(name, "plain", [1] * N, role="control", eps=1.0, control="plain unbounded")
    builder.record(name, "plain", [1] * 6, role="control", eps=0.5, control="plain doubled eps")
    builder.record(name, "noise", [1] * N, role="control")
    return builder.write()


def test_the_page_begins_with_the_model_its_figure_and_what_it_means(audited: Path) -> None:
    page = Page(write(audited))
    assert (
        "net. onnx keeps 0 % [0, 26.5] of 100 % under L∞ 0.25. Its gradient is masked, so the 100 % that the plain "
        "attack leaves is no evidence of robustness. The model is not robust in this ball."
    ) in page.text
    assert page.tags.index("h1") < page.tags.index("article")
    text = (audited / "report.html").read_text()
    assert 'role="img" aria-label="Clean 100 % [73.5, 100], then Plain attack 100 % [73.5, 100], then Adaptive' in text
    assert re.findall(r'<span class="(\w+)" style="width:([\d.]+)%">', text) == [
        ("clean", "100.00"),
        ("plain", "100.00"),
        ("adaptive", "0.00"),
    ]
    assert "2 January 2030, 03:04 UTC" in page.text
    header = text[: text.index("</header>")]
    assert re.findall(r'class="chip ([\w-]+)"', header) == ["masked"]  # the legend of what occurs, and of no more


def test_warnings_come_before_the_headline(builder: Builder) -> None:
    builder.case("a")
    builder.record("a", "clean", [1] * 3, role="clean")
    builder.record("a", "plain", [1] * 3, role="plain")
    builder.record("a", "bpda", [1] * 3)
    text = write(builder.write()).read_text()
    assert text.index('class="warning"') < text.index("<h1>")


def test_the_table_has_a_legend_of_the_results_in_it(run: Path) -> None:
    text = write(run).read_text()
    section = text[text.index('aria-label="All cases"') :]
    legend = section[section.index("<dl") : section.index("</dl>")]
    assert re.findall(r'class="chip ([\w-]+)"', legend) == ["masked", "inconclusive", "incomplete"]


def test_nothing_is_shown_that_nobody_stated(audited: Path) -> None:
    write(audited)
    for name in ("report.html", "report.md"):
        assert not re.search("claimed|published|—", (audited / name).read_text(), re.IGNORECASE)


def test_findings_have_words_their_code_and_the_view_that_the_attacks_take(audited: Path) -> None:
    page, text = Page(write(audited)), (audited / "report.html").read_text()
    words = "The gradient of round is wrong: it predicts 25 % of the output's change (100 % if it were correct)."
    assert words in page.text
    assert '<span class="here"><i>3 ▸</i>     return x.round()  # &lt;b&gt;</span>' in text
    assert "<b>" not in text[text.index('<pre class="source"') : text.index("</pre>")]
    view = "in its pilot, of 12 steps, 12.5 % of the examples stay correct, 100 % through the model"
    assert view in page.text
    markdown = (audited / "report.md").read_text()
    assert f"- **shattered** encode: net.py:3 return x.round(). {words} Remedy: bpda: encode=identity" in markdown
    assert 'The attacks take the view bpda("encode"): in its pilot 12.5 % of the examples stay correct.' in markdown


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ({"operation": "detach", "gradient": "missing"}, "The gradient of detach is missing."),
        (
            {"operation": "sqrt", "gradient": "not finite", "images": 0.5},
            "The gradient of sqrt is NaN or infinite on 50.0 % of the images.",
        ),
        (
            {"operation": "exp", "flat": 1.0},
            "The loss is flat on 100.0 % of the images, because exp is saturated.",
        ),
        ({"flat": 0.75, "probabilities": True}, "The loss is flat on 75.0 % of the images."),
        (
            {"flat": 0.0, "saturated_logits": 0.75},
            "On 75.0 % of the images most logits are saturated, so they hardly change.",
        ),
        (
            {"operation": "rand", "signal": 0.125, "flips": 0.0},
            "Random numbers of rand change the gradient: single draws have 12.5 % of its energy in common, and 0.0 % "
            "of the answers change between draws.",
        ),
        ({"ties": 0.5, "dtype": "float16"}, "ties: 0.5; dtype: float16"),
        ({}, ""),
    ],
)
def test_a_finding_in_words(evidence: dict[str, Any], words: str) -> None:
    assert effect({"evidence": evidence}) == words


def test_lines_of_code_and_winning_views_that_are_not_there() -> None:
    assert source({**FINDING, "evidence": {}}) == []
    assert [here for _, _, here in source(FINDING)] == [False, True]
    assert winning_view([]) is None
    own = winning_view([{"view": "own gradient", "robust_accuracy": 0.5, "error": ""}])
    assert own is not None
    assert (own.robust_accuracy, own.own) == (0.5, None)


def test_controls_are_compared_with_what_they_should_leave(builder: Builder) -> None:
    builder.case("a")
    builder.record("a", "clean", [1] * 19 + [0], role="clean")
    builder.record("a", "plain", [1] * 10 + [0] * 10, role="plain")
    builder.record("a", "bpda", [1] * 4 + [0] * 16)
    for name, robust in {
        "eps 0": [1] * 10,  # the first ten, which are all correct
        "noise": [1] * 3 + [0] * 7,  # fewer than the four of the attack
        "plain one step": [1] * 10,
        "doubled steps": [1] * 4 + [0] * 6,
        "doubled eps": [1] * 5 + [0] * 5,
        "unbounded": [0] * 10,
        "plain unbounded": [1] * 5 + [0] * 5,
        "other": [1] * 10,
    }.items():
        builder.record("a", "some", robust, role="control", control=name)
    run = folder(builder)
    found = {one.name: (one.passed, one.expected) for one in controls(run, run.cases[0])}
    assert found == {
        "eps 0": (True, "100 %: the clean accuracy of these examples"),
        "noise": (False, "at least 40 %, as the adaptive attacks of these examples"),
        "plain one step": (True, "at least 100 %, as the plain attack of these examples"),
        "doubled steps": (True, "about 40 %, as the adaptive attacks of these examples"),
        "doubled eps": (False, "at most 40 %, as the adaptive attacks of these examples at eps"),
        "unbounded": (True, "0 %: no model is robust without a bound"),
        "plain unbounded": (False, "0 %: no model is robust without a bound"),
        "other": (None, ""),
    }
    page = Page(write(run.path))
    assert "Controls: 4 of 7 as expected" in page.text
    assert "✗ not as expected at least 40 %, as the adaptive attacks of these examples" in page.text


def test_a_refusal_at_eps_0_is_correct_as_it_is_for_an_attack(builder: Builder) -> None:
    builder.case("a", ("plain",))
    clean = builder.record("a", "clean", [1, 0, 0, 0], role="clean")
    refused = tuple(replace(one, refused=one.index in (1, 2)) for one in clean.examples)
    builder.records[-1] = replace(clean, examples=refused)
    builder.record("a", "plain", [0] * 4, role="plain")
    builder.record("a", "plain", [1, 1, 1, 0], role="control", eps=0.0, control="eps 0")
    run = folder(builder)
    (still,) = controls(run, run.cases[0])
    assert (still.expected, still.passed) == ("75 %: the clean accuracy of these examples", True)


def test_indicators_that_were_seen_are_a_table_and_others_a_line(audited: Path) -> None:
    text = Page(write(audited)).text
    assert "Indicators of attack failure: 2 seen" in text
    assert "unconstrained failure plain the robust accuracy without a bound is 100%" in text
    assert "Not seen: noise beats gradients (plain, adaptive); silent success (plain, adaptive)." in text


def labelled(builder: Builder, attack: str, role: str, pairs: list[tuple[int, int]]) -> None:
    """Examples of a true class and a prediction each."""
    record = builder.record("a", attack, [float(a == b) for a, b in pairs], role=role)
    examples = tuple(replace(one, label=a, predicted=b) for one, (a, b) in zip(record.examples, pairs, strict=True))
    builder.records[-1] = replace(record, examples=examples)


def test_accuracy_of_each_class_and_confusion_under_attack(builder: Builder) -> None:
    builder.case("a")
    labelled(builder, "clean", "clean", [(0, 0), (0, 0), (0, 1), (2, 2)])
    labelled(builder, "plain", "plain", [(0, 0), (0, 2), (0, 1), (2, 2)])
    labelled(builder, "bpda", "adaptive", [(0, 1), (0, 0), (0, 1), (2, 2)])
    run = folder(builder)
    found = per_class(run, run.cases[0])
    assert found is not None
    values = [
        (one.name, one.n, one.clean and one.clean.value, one.robust and one.robust.value) for one in found.classes
    ]
    assert values == [("zero", 3, pytest.approx(2 / 3), 0.0), ("two", 1, 1.0, 1.0)]
    assert found.omitted == 0
    pairs = confusion(run, run.cases[0])
    assert pairs is not None
    assert (pairs.labels, pairs.predictions) == (("zero", "two"), ("zero", "one", "two"))
    assert pairs.counts == ((0, 2, 1), (0, 0, 1))  # of each example under the attack that is worst for it
    assert pairs.largest == 2
    assert "Confusion under attack" in Page(write(run.path)).text


def test_refusals_are_a_column_and_of_many_classes_the_most_frequent_mistakes_are_listed(builder: Builder) -> None:
    builder.case("a", ("bpda",), classes=[f"c{i}" for i in range(9)])
    labelled(builder, "bpda", "adaptive", [(0, 1), (0, 1), (2, 3), (4, 5), (4, 4)])
    record = builder.records[-1]
    builder.records[-1] = replace(record, examples=(*record.examples[:4], replace(record.examples[4], refused=True)))
    run = folder(builder)
    whole, few = confusion(run, run.cases[0]), confusion(run, run.cases[0], max_classes=5, max_pairs=2)
    assert whole is not None
    assert few is not None
    assert whole.predictions == ("c0", "c1", "c2", "c3", "c4", "c5", "refused")
    assert whole.counts[-1] == (0, 0, 0, 0, 0, 1, 1)
    assert (few.counts, few.pairs) == ((), (("c0", "c1", 2), ("c2", "c3", 1)))
    small = per_class(run, run.cases[0], max_classes=2)
    assert small is not None
    assert ([one.name for one in small.classes], small.omitted) == (["c0", "c4"], 1)


def test_no_classes_and_no_confusion_where_there_is_nothing_to_say(builder: Builder) -> None:
    builder.case("a")
    builder.record("a", "clean", [1, 1], role="clean")
    builder.record("a", "plain", [1, 1], role="plain")
    run = folder(builder)
    assert (per_class(run, run.cases[0]), confusion(run, run.cases[0])) == (None, None)
    assert perturbations(run, run.cases[0]) is None
    text = Page(write(run.path)).text
    assert not re.search("Confusion|each class|Smallest perturbation", text)


def test_the_smallest_perturbation_is_that_of_the_smallest_ball_that_broke_an_example(builder: Builder) -> None:
    builder.case("a")
    builder.record("a", "clean", [0, 1, 1, 1, 1], role="clean")
    builder.record("a", "plain", [0, 1, 1, 1, 1], role="plain")
    builder.record("a", "bpda", [0, 0, 0, 1, 0])
    builder.record("a", "plain", [0, 1, 1, 1], role="eps", eps=0.125, base="plain")
    builder.record("a", "bpda", [0, 0, 1, 1], role="eps", eps=0.125, base="adaptive")
    builder.record("a", "bpda", [0, 0, 0, 0], role="control", eps=0.0, control="eps 0")
    run = folder(builder)
    found = perturbations(run, run.cases[0])
    assert found is not None
    # The first example is wrong anyhow, the last was not attacked in the smaller ball.
    assert (found.distances, found.unbroken, found.n) == ((0.125, 0.25), 1, 3)
    assert (found.sizes, found.attacks) == ((0.125, 0.25), ("plain", "bpda"))
    text = Page(write(run.path)).text
    assert "Smallest perturbation found for each of 3 examples that are correct without an attack" in text
    assert "No attack broke 1 of them. Balls of size 0.125, 0.25; attacks: plain, bpda." in text


def test_a_candidate_outside_the_ball_or_in_another_unit_is_no_perturbation(builder: Builder) -> None:
    builder.case("a", ("bpda",), threat={"norm": "linf", "eps": 0.25, "unit": "rms"})
    builder.record("a", "clean", [1, 1], role="clean")
    builder.record("a", "bpda", [0, 0])
    run = folder(builder)
    assert perturbations(run, run.cases[0]) is None
    builder.case("b", ("bpda",))
    builder.record("b", "clean", [1, 1], role="clean")
    builder.record("b", "bpda", [0, 0], infeasible=1)
    run = folder(builder)
    found = perturbations(run, run.cases[1])
    assert found is not None
    assert (found.distances, found.unbroken) == ((0.25,), 1)


def test_the_curve_of_an_audit_has_the_controls_at_twice_eps(audited: Path) -> None:
    (row,) = table(RunFolder.read(audited))
    assert [point.eps for point in row.eps_curve] == [0.0, 0.25, 0.5]
    doubled = row.eps_curve[-1]
    assert doubled.plain is not None
    assert (doubled.plain.value, doubled.plain.n, doubled.adaptive) == (1.0, 6, None)


def test_a_change_is_scaled_by_eps_or_where_eps_bounds_no_pixel_by_its_largest_element(builder: Builder) -> None:
    for name, threat in {"a": "linf", "b": "l2"}.items():
        builder.case(name, threat={"norm": threat, "eps": 0.125, "unit": "raw"})
        builder.record(name, "clean", [1], role="clean")
        record = builder.record(name, "bpda", [0], images=True)
        assert record.file is not None
        tensors = load_file(builder.path / record.file)
        save_file({**tensors, "x_adv": tensors["clean"] + np.float32(0.0625)}, builder.path / record.file)
    run = folder(builder)
    linf, l2 = (gallery(run, case) for case in run.cases)
    assert linf is not None
    assert l2 is not None
    assert grey(linf.pictures[0])["change / (2 eps)"] == round(255 * (0.5 + 0.0625 / (2 * 0.125)))
    assert "1/(2 eps)" in linf.scaling
    assert grey(l2.pictures[0])["change, scaled"] == 255
    assert "its largest element" in l2.scaling
    assert "example 0" in Page(write(run.path)).text


def test_sizes_and_dates_as_people_write_them() -> None:
    assert [eps(8 / 255), eps(8 / 255 + 5e-10), eps(0.0313), eps(1e-10), eps(51 / 255)] == [
        "8/255",
        "8/255",
        "0.0313",
        "1e-10",
        "0.2",
    ]
    assert date("2026-11-29T14:05:59+00:00") == "29 November 2026, 14:05 UTC"
    assert date(None) == "None"


def test_what_a_result_means_for_gradients_and_robustness_is_never_mixed(builder: Builder) -> None:
    """Each sentence about the gradient, with one about the robust accuracy; none says that a model is robust."""
    builder.case("sound")
    for attack, role, robust in (
        ("clean", "clean", [1] * 20),
        ("plain", "plain", [1] * 20),
        ("bpda", "adaptive", [1] * 20),
    ):
        builder.record("sound", attack, robust, role=role)
    builder.case("partly")
    for attack, role, left in (("clean", "clean", 20), ("plain", "plain", 20), ("bpda", "adaptive", 12)):
        builder.record("partly", attack, [1] * left + [0] * (20 - left), role=role)
    builder.case("weak", ("plain",))
    builder.record("weak", "clean", [1] * 20, role="clean")
    builder.record("weak", "plain", [0] * 20, role="plain")
    builder.case("few")
    for attack, role in (("clean", "clean"), ("plain", "plain"), ("bpda", "adaptive")):
        builder.record("few", attack, [1] * 4, role=role)
    stronger = "The robust accuracy is what these attacks leave; a stronger attack may leave less."
    assert [consequence(row) for row in table(folder(builder))] == [
        f"No gradient masking was found. {stronger}",
        f"Its gradient is partly masked: the plain attack leaves 100 %. {stronger}",
        "No gradient masking was found. The model is not robust in this ball.",
        "Whether its gradient is masked is not known: too few images for any conclusion. "
        "Its robust accuracy is unreliable: see the warnings.",
    ]
