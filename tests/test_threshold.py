"""The threshold of --fail-under, on rows made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import Builder
from unmask.cli.threshold import FailOn, Threshold
from unmask.report.run_folder import RunFolder
from unmask.report.table import table


def failures(folder: Path, threshold: Threshold, left: int, **fields: Any) -> list[str]:
    """Of a plain attack that leaves ``left`` of twenty images."""
    builder = Builder(folder)
    builder.case("a", ("plain",), **fields)
    builder.record("a", "clean", [1] * 20, role="clean")
    builder.record("a", "plain", [1] * left + [0] * (20 - left), role="plain")
    return threshold.failures(table(RunFolder.read(builder.write())))


def test_the_figure_and_the_lower_end(tmp_path: Path) -> None:
    assert failures(tmp_path, Threshold(0.75), 15) == []
    assert failures(tmp_path, Threshold(0.75), 14) == ["a: robust accuracy 0.7 is under 0.75"]
    lower = Threshold(0.75, FailOn.LOWER)
    assert failures(tmp_path, lower, 15) == ["a: the lower end of the interval is 0.509, under 0.75"]
    assert failures(tmp_path, lower, 20) == []


def test_an_incomplete_run_fails(tmp_path: Path) -> None:
    assert failures(tmp_path, Threshold(0.0), 20, n=21) == ["a: the run is incomplete"]


def test_an_unreliable_figure_fails_with_the_first_reason(tmp_path: Path) -> None:
    setup: list[dict[str, Any]] = [
        {"kind": kind, "module": "", "where": "", "evidence": {}, "remedy": ""} for kind in ("batch", "range")
    ]
    (failure,) = failures(tmp_path, Threshold(0.0), 20, setup=setup)
    assert failure.startswith("a: unreliable: the model was made for images of another range")


def test_a_black_box_fails_with_the_reason_and_what_to_do(tmp_path: Path) -> None:
    (failure,) = failures(tmp_path, Threshold(0.0), 20, access={"plain": "scores"})
    assert failure.startswith("a: unreliable: only black-box attacks were run; a white-box attacker may do better")
    assert failure.endswith("; give the model with its gradients, or leave out --fail-under")


def test_what_is_compared_is_asked_for_with_a_threshold() -> None:
    assert Threshold.of(None, FailOn.FIGURE) is None
    with pytest.raises(ValueError, match="give --fail-under SHARE, too"):
        Threshold.of(None, FailOn.LOWER)
