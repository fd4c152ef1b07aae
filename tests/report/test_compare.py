"""Two runs on the same images, against numbers counted by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from unmask import compare
from unmask.report.compare import compare_runs, compared, unreliable
from unmask.report.run_folder import RunFolder
from unmask.report.table import table
from unmask.statistics import ANYTIME, accuracy


def defense(builder: Any, name: str, plain: list[int], adaptive: list[int], **fields: Any) -> None:
    builder.case(name, **fields)
    builder.record(name, "clean", [1] * len(plain), role="clean")
    builder.record(name, "plain", plain, role="plain")
    builder.record(name, "bpda", adaptive)


def unsigned(folder: Path) -> str:
    """The records without their digests, to be edited."""
    return re.sub('"digest": "[0-9a-f]+", ', "", (folder / "records.jsonl").read_text())


def test_two_defenses_on_the_same_images(builder: Any) -> None:
    defense(builder, "a", [1] * 10, [1] * 9 + [0])
    defense(builder, "b", [1] * 5 + [0] * 5, [0] * 9 + [1])
    folder = builder.write()
    clean, plain, adaptive = compare(folder, folder, ("a", "b"))
    assert [pair.what for pair in (clean, plain, adaptive)] == ["clean", "plain", "adaptive"]
    assert (clean.difference.value, clean.difference.p, clean.changed) == (0.0, 1.0, 0)
    assert (plain.difference.value, plain.changed) == (0.5, 5)
    assert plain.difference.p == pytest.approx(stats.binomtest(5, 5).pvalue)
    assert (adaptive.first.value, adaptive.second.value, adaptive.difference.n) == (0.9, 0.0, 10)  # worst case of both
    assert adaptive.difference.p == pytest.approx(stats.binomtest(9, 9).pvalue)


def test_a_comparison_says_of_what_and_what_it_leaves_out(builder: Any) -> None:
    defense(builder, "a", [1] * 4, [1] * 4)
    builder.case("b")
    builder.record("b", "clean", [1] * 6, role="clean")
    builder.record("b", "plain", [1] * 4, role="plain")
    folder = builder.write()
    assert compared(folder, folder, ("a", "b")) == [
        f"first: {folder}, a; second: {folder}, b",
        "left out: 2 examples of clean, which only one of the two has",
        f"left out: adaptive, which is not in {folder}, b",
    ]


def test_what_cannot_be_compared(builder: Any) -> None:
    defense(builder, "a", [1], [1])
    defense(builder, "b", [1], [1], threat={"norm": "linf", "eps": 0.1, "unit": "raw"})
    folder = builder.write()
    with pytest.raises(ValueError, match=r"a was attacked on digits at linf 0\.25 raw, b on digits at linf 0\.1"):
        compare(folder, folder, ("a", "b"))
    with pytest.raises(ValueError, match="has 2 cases to compare: name one of a, b"):
        compare(folder, folder)
    with pytest.raises(ValueError, match="has 0 cases to compare"):
        compare(folder, folder, ("c", "a"))


def test_a_run_against_its_own_copy_with_one_verdict_turned(builder: Any, tmp_path: Path) -> None:
    defense(builder, "a", [1] * 10, [0] * 10)
    folder = builder.write()
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text((folder / "run.json").read_text())
    (other / "records.jsonl").write_text(unsigned(folder).replace('"robust": 0, ', '"robust": 1, ', 1))
    found = {pair.what: pair for pair in compare_runs(folder, other)}
    assert {what: pair.changed for what, pair in found.items() if pair.changed} == {"a on digits, bpda at 0.25 raw": 1}
    assert len(found) == 3
    assert found["a on digits, bpda at 0.25 raw"].difference.value == pytest.approx(-0.1)
    (other / "records.jsonl").write_text("")
    with pytest.raises(ValueError, match="no attack on the same case in common"):
        compare_runs(folder, other)


def test_other_labels_are_other_data(builder: Any, tmp_path: Path) -> None:
    defense(builder, "a", [1] * 3, [0] * 3)
    folder, other = builder.write(), tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text((folder / "run.json").read_text())
    (other / "records.jsonl").write_text(unsigned(folder).replace('"label": 1', '"label": 2'))
    with pytest.raises(ValueError, match="example 0 has another label"):
        compare(folder, other)


def test_a_run_with_a_stop_rule_has_intervals_that_bear_it(builder: Any) -> None:
    defense(builder, "a", [0] * 128, [0] * 128, n=1000)
    folder = builder.write()
    (unfinished,) = table(RunFolder.read(folder))
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run, "config": {"stop_when": "upper<0.05"}}))
    (row,) = table(RunFolder.read(folder))
    assert (unfinished.complete, row.complete) == (False, True)
    assert row.adaptive is not None
    assert row.adaptive.high == accuracy([0] * 128, anytime=True).high > accuracy([0] * 128).high
    assert (row.intervals, row.stop_when) == (ANYTIME, "upper<0.05")


def test_unreliable_and_incomplete_runs_are_named(builder: Any) -> None:
    defense(builder, "sound", [1] * 20, [1] * 20)
    defense(builder, "few", [1] * 9, [1] * 9)
    defense(builder, "begun", [1] * 20, [1] * 20, n=30)
    folder = builder.write()
    assert unreliable(folder, folder, ("sound", "few")) == [
        f"{folder}, few, is unreliable: 9 images: too few for any conclusion; use at least 10 with --n"
    ]
    assert unreliable(folder, folder, ("begun", "begun")) == [f"{folder}, begun, is unreliable: the run is incomplete"]
