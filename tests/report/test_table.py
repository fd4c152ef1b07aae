"""Every number of report.json against hand calculation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from tests.report.conftest import CLAIMED, Builder
from tests.report.conftest import figure as stated
from unmask.errors import UnmaskError
from unmask.records import RUN_SCHEMA, Record
from unmask.report import write
from unmask.report.run_folder import RunFolder, by_attack
from unmask.report.table import table


def rows_of(run: Path) -> list[dict[str, Any]]:
    write(run)
    content = json.loads((run / "report.json").read_text())
    assert content["schema"] == "unmask.table/3"
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def figure(k: int, n: int, attack: str | None) -> dict[str, Any]:
    known = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    return {
        "value": k / n,
        "low": pytest.approx(known.low),
        "high": pytest.approx(known.high),
        "n": n,
        "attack": attack,
    }


def test_a_masked_defense(run: Path) -> None:
    row = rows_of(run)[0]
    assert list(row)[:7] == ["case", "defense", "data", "threat", "clean", "plain", "adaptive"]
    assert row["threat"] == {"norm": "linf", "eps": 0.25, "unit": "raw"}
    assert row["clean"] == figure(9, 10, None)
    assert row["plain"] == figure(8, 10, "plain")
    assert row["adaptive"] == figure(1, 10, "worst of bpda, plain")  # bpda leaves 7 and 8, plain took 8
    assert (row["claimed"], row["published"], row["seconds"]) == (CLAIMED, None, 7 * 1.5)
    # 7 examples fall and one rises, so p = (1 + 8) / 2^8
    assert row["paired_test"] == {"value": pytest.approx(0.6), "p": pytest.approx(9 / 256), "n": 10}
    assert (row["complete"], row["masking"], row["reliable"], row["warnings"]) == (True, "masked", True, [])
    assert row["controls"] == {"noise": figure(4, 4, "noise"), "unbounded": figure(0, 4, "unbounded")}
    assert row["eps_curve"] == [
        {"eps": 0.0, "plain": row["clean"], "adaptive": row["clean"]},
        {"eps": 0.25, "plain": row["plain"], "adaptive": row["adaptive"]},
        {"eps": 0.5, "plain": figure(3, 4, "plain"), "adaptive": figure(0, 4, "worst of bpda, plain")},
    ]
    assert [(a["name"], a["role"], a["accuracy"]["value"]) for a in row["attacks"]] == [
        ("plain", "plain", 0.8),
        ("bpda", "adaptive", 0.2),
    ]
    assert [(a["forwards"], a["backwards"], a["seconds"]) for a in row["attacks"]] == [(100, 40, 1.5)] * 2


def test_random_defense_is_scored_on_draws_that_no_attack_selected_by(run: Path) -> None:
    row = rows_of(run)[1]
    # screened prefers plain, eot, and on ties eot, though its fresh draws say otherwise for example 0:
    # plain 0.75, eot 0.25, eot 0 (tie), eot 0.25 (tie)
    assert row["adaptive"]["value"] == pytest.approx((0.75 + 0.25 + 0 + 0.25) / 4)
    assert row["clean"]["value"] == pytest.approx(3.25 / 4)
    assert row["plain"]["value"] == pytest.approx(2 / 4)
    eot = row["attacks"][1]
    assert (eot["accuracy"]["value"], eot["robust_one_draw"], eot["robust_all_draws"], eot["draws"]) == (
        1.5 / 4,
        0.25,
        0.25,
        4,
    )
    assert row["paired_test"] == {"value": pytest.approx(0.5 / 4), "p": pytest.approx(5 / 16), "n": 4}
    assert (row["random"], row["masking"], row["published"]) == (True, "inconclusive", stated(0.0))


def test_control_without_an_adaptive_attack(run: Path) -> None:
    row = rows_of(run)[2]
    assert (row["plain"], row["adaptive"], row["paired_test"]) == (figure(1, 4, "plain"), None, None)
    assert (row["control"], row["complete"], row["masking"], row["eps_curve"]) == (True, True, "inconclusive", [])


def test_unfinished_case(run: Path) -> None:
    row = rows_of(run)[3]
    assert (row["clean"], row["plain"], row["adaptive"]) == (figure(3, 3, None), figure(1, 2, "plain"), None)
    assert (row["complete"], row["masking"], row["note"]) == (False, "incomplete", "slow")


def test_nothing_done_yet(builder: Any) -> None:
    builder.case("a")
    builder.write()
    (builder.path / "records.jsonl").unlink()
    (row,) = rows_of(builder.path)
    assert (row["clean"], row["plain"], row["adaptive"], row["attacks"]) == (None, None, None, [])
    assert (row["complete"], row["seconds"]) == (False, 0)


def test_asked_for_more_than_is_there(builder: Any) -> None:
    for name, n in (("all", 4), ("half", 8)):
        builder.case(name, ("plain",), n=n)
        builder.record(name, "clean", [1] * 4, role="clean")
        builder.record(name, "plain", [1] * 4, role="plain")
    assert [row["complete"] for row in rows_of(builder.write())] == [True, False]


def test_blocks_and_their_order_do_not_matter(builder: Any) -> None:
    robust = [0.1, 0.7, 0.2, 0.9, 0.3]
    builder.case("a", ("plain",))
    builder.record("a", "clean", [1] * 5, role="clean")
    builder.record("a", "plain", robust, role="plain")
    whole = table(RunFolder.read(builder.write()))[0]
    del builder.records[1]
    builder.record("a", "plain", robust[2:], role="plain", start=2)
    builder.record("a", "plain", robust[:2], role="plain")
    assert table(RunFolder.read(builder.write()))[0].plain == whole.plain


def test_targets_and_cases_may_be_named_with_their_prefix(builder: Any) -> None:
    builder.case("case:a", ("plain",))
    builder.record("a", "clean", [1, 1, 0], role="clean")
    assert rows_of(builder.write())[0]["clean"] == figure(2, 3, None)


def test_a_job_that_was_done_twice_counts_once(builder: Any) -> None:
    builder.case("a", ("plain",))
    builder.record("a", "clean", [1, 1], role="clean")
    builder.record("a", "clean", [1, 0], role="clean")
    row = rows_of(builder.write())[0]
    assert (row["clean"], row["seconds"]) == (figure(1, 2, None), 1.5)


def test_torn_last_line_is_left_out(run: Path) -> None:
    before = rows_of(run)
    records = run / "records.jsonl"
    torn = records.read_bytes() + records.read_bytes().splitlines()[0][:-40]
    records.write_bytes(torn + "é".encode()[:1])
    assert rows_of(run) == before


@pytest.mark.parametrize("line", [1, 5, -1])
def test_broken_line_is_named(run: Path, line: int) -> None:
    records = run / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    number = line if line > 0 else len(lines)
    lines[number - 1] = lines[number - 1].replace('"seed": 0', '"seed": 1')
    records.write_text("".join(lines))
    with pytest.raises(ValueError, match=rf"records.jsonl, line {number}: record .* was changed.*; delete") as error:
        write(run)
    assert "\n" not in str(error.value)
    assert not (run / "report.json").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"schema": "unmask.run/9"}', f"version 'unmask.run/9', this program reads '{RUN_SCHEMA}'"),
        ('{"schema": ', "is damaged .*start the run again"),
        (
            '{"schema": "unmask.run/4", "config": {}, "jobs": [], "fingerprints": {}, "cases": [{"case": "a"}]}',
            "is damaged .*threat",
        ),
    ],
)
def test_bad_run_json_is_refused_in_one_line(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=complaint) as error:
        write(tmp_path)
    assert "\n" not in str(error.value)


def test_later_blocks_replace_earlier_ones_example_by_example(builder: Any) -> None:
    first: Record = builder.record("a", "plain", [1, 1, 1])
    second: Record = builder.record("a", "plain", [0, 0], start=2)
    found = by_attack([first, second])["plain"]
    assert {index: f.example.robust for index, f in found.items()} == {0: 1, 1: 1, 2: 0, 3: 0}


def test_equals_go_to_the_attack_that_did_best_where_attacks_select(builder: Any) -> None:
    builder.case("a", random=True)
    builder.record("a", "plain", [0, 0, 0.25], role="plain", screened=[0, 0, 0])
    builder.record("a", "bpda", [0.5, 0.5, 0], screened=[0, 0, 0.25])
    row = rows_of(builder.write())[0]
    assert row["adaptive"]["value"] == pytest.approx(0.25 / 3)


def test_earlier_figures_stand_beside_the_published_ones(builder: Any) -> None:
    builder.case("a", replicated=stated(0.05))
    builder.case("b")
    assert [row["replicated"] for row in rows_of(builder.write())] == [stated(0.05), None]


def test_access_is_told_where_attacks_of_a_case_differ_in_it(builder: Any) -> None:
    attacks = ("plain", "square")
    builder.case("mixed", attacks, access={"plain": "white box", "square": "scores"})
    builder.case("alike", attacks, access={"plain": "white box", "square": "white box"})
    for name in ("mixed", "alike"):
        builder.record(name, "plain", [1, 1], role="plain")
        builder.record(name, "square", [1, 0])
    mixed, alike = rows_of(builder.write())
    assert [a["access"] for a in mixed["attacks"]] == ["white box", "scores"]
    assert [a["access"] for a in alike["attacks"]] == ["", ""]


def test_a_wrong_answer_may_keep_the_general_category(builder: Any) -> None:
    """What falls is taken for class 2 instead of 1: another dog in one case, a car in the other."""
    for name, groups in (("near", [0, 1, 1]), ("far", [0, 1, 0])):
        builder.case(name, ("plain", "bpda"), groups=groups)
        builder.record(name, "clean", [1, 1, 1, 0], role="clean")
        builder.record(name, "plain", [1, 1, 0, 0], role="plain")
        builder.record(name, "bpda", [0, 1, 0, 0])
    near, far = rows_of(builder.write())
    for kind, right in (("clean", 3), ("plain", 2), ("adaptive", 1)):
        assert near[kind]["value"] == right / 4
        assert near["superclass_accuracy"][kind] == figure(4, 4, None)
        assert far["superclass_accuracy"][kind] == figure(right, 4, None)
    assert [a["superclass_accuracy"] for a in far["attacks"]] == [figure(2, 4, None), figure(1, 4, None)]


def test_without_groups_there_are_no_general_categories(run: Path) -> None:
    assert all(
        row["superclass_accuracy"] == {} and row["attacks"][0]["superclass_accuracy"] is None for row in rows_of(run)
    )


def test_accuracies_at_each_strength_of_a_defense(builder: Any) -> None:
    builder.case("a", strength_sweep={"varied": "step", "own": 30.0})
    for value, clean, adaptive in ((60.0, [1, 0], [0, 0]), (30.0, [1, 1], [1, 0])):
        builder.record("a", "clean", clean, role="strength", base="clean", strength=value)
        builder.record("a", "bpda", adaptive, role="strength", base="adaptive", strength=value)
    row = rows_of(builder.write())[0]
    assert (row["varied"], row["own"]) == ("step", 30.0)
    assert row["strength_curve"] == [
        {"value": 30.0, "clean": figure(2, 2, "clean"), "plain": None, "adaptive": figure(1, 2, "bpda")},
        {"value": 60.0, "clean": figure(1, 2, "clean"), "plain": None, "adaptive": figure(0, 2, "bpda")},
    ]
    assert (row["clean"], row["adaptive"]) == (None, None)


def test_without_a_dial_there_are_no_strengths(run: Path) -> None:
    assert all((row["varied"], row["own"], row["strength_curve"]) == ("", None, []) for row in rows_of(run))


@pytest.mark.parametrize(
    ("role", "options"),
    [
        ("eps", {}),
        ("eps", {"base": 1}),
        ("strength", {"base": "plain"}),
        ("strength", {"base": "plain", "strength": "x"}),
    ],
)
def test_a_point_of_a_curve_that_does_not_say_where_it_lies_is_refused(
    builder: Builder, role: str, options: dict[str, Any]
) -> None:
    builder.case("a", ("plain",))
    builder.record("a", "plain", [1, 0], role=role, **options)
    with pytest.raises(UnmaskError, match=r"cannot be shown \(a job has "):
        RunFolder.read(builder.write())
