"""A run that may stop early stops at the first block that meets its rule, wherever it was interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.commands import unmask
from unmask.evaluation.runner import LocalExecutor, run
from unmask.evaluation.store import Store
from unmask.evaluation.verifying.verify import verify
from unmask.statistics import StopRule, accuracy


def stopped(folder: Path, plan: Any, rule: str, progress: Any = lambda record, stored: None) -> None:
    local = LocalExecutor()
    settled = local.fingerprints(plan.jobs)
    with Store.open(folder, {"stop_when": rule}, {"cases": [plan.case_info]}, plan.jobs, settled) as store:
        run(plan.jobs, store, local, progress, StopRule.parse(rule))


def ranges(results: dict[str, dict[str, Any]]) -> set[tuple[str, int]]:
    return {(record["job"]["attack"], record["job"]["stop"]) for record in results.values()}


def test_it_stops_where_the_interval_is_as_asked_for(tmp_path: Path, plan: Any, results: Any) -> None:
    asked = plan("linear", 350)
    assert {job.stop for job in asked.jobs} == {128, 256, 350}
    stopped(tmp_path / "whole", asked, "width<0.001")
    robust = [
        e["robust"]
        for r in sorted(results(tmp_path / "whole").values(), key=lambda r: int(r["job"]["start"]))
        if r["job"]["role"] != "clean"
        for e in r["examples"]
    ]
    assert len(robust) == 350
    highs = [accuracy(robust[:n], anytime=True).high for n in (128, 256)]
    assert highs[1] < highs[0]
    stopped(tmp_path / "stopped", asked, f"upper<{sum(highs) / 2:.6f}")
    assert ranges(results(tmp_path / "stopped")) == {(a, n) for a in ("clean", "apgd") for n in (128, 256)}
    first = results(tmp_path / "whole")
    assert all(first[key] == record for key, record in results(tmp_path / "stopped").items())


def test_interrupted_it_stops_at_the_same_place(tmp_path: Path, plan: Any, results: Any) -> None:
    asked, rule = plan("linear", 350), "upper<0.999"
    stopped(tmp_path / "whole", asked, rule)

    def interrupt(record: Any, stored: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped(tmp_path / "halves", asked, rule, interrupt)
    assert len(results(tmp_path / "halves")) == 1
    stopped(tmp_path / "halves", asked, rule)
    assert results(tmp_path / "halves") == results(tmp_path / "whole")
    assert ranges(results(tmp_path / "whole")) == {("clean", 128), ("apgd", 128)}


def test_blocks_after_the_end_are_not_missed_and_others_are(tmp_path: Path, plan: Any) -> None:
    asked, folder = plan("linear", 350, steps=2), tmp_path / "run"
    stopped(folder, asked, "upper<0.999")

    def problems() -> list[str | None]:
        return [check.problem for check in verify(folder, LocalExecutor(), [asked]) if check.problem]

    assert problems() == []
    path = folder / "run.json"
    told = json.loads(path.read_text())
    told.pop("digest")
    told["config"]["stop_when"] = "upper<0.001"
    path.write_text(json.dumps(told))
    missing = problems()
    assert missing[0] == "it has no digest"
    assert str(missing[1]).startswith(f"missing: {asked.jobs[0].target} clean 128-256 at linf 0.1 raw")


@pytest.mark.parametrize(("rule", "stops"), [("upper<0.999", {128}), ("width<0.001", {128, 256, 350})])
def test_controls_are_made_on_all_examples_up_to_where_the_run_stopped_and_no_others(
    tmp_path: Path, plan: Any, results: Any, rule: str, stops: set[int]
) -> None:
    asked = plan("linear", 350)
    controls = [replace(job, attack="noise", role="control") for job in asked.jobs if job.role == "clean"]
    stopped(tmp_path / "run", replace(asked, jobs=(*asked.jobs, *controls)), rule)
    assert ranges(results(tmp_path / "run")) == {(a, n) for a in ("clean", "apgd", "noise") for n in stops}


def test_the_report_says_so(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["reproduce", "--case", "plain-digits", "--n", "300", "--no-curves", "--stop-when", "upper<0.5"]
    assert unmask(*command, "--out", str(out)) == 0
    (row,) = json.loads((out / "report.json").read_text())["rows"]
    assert row["stop_when"] == "upper<0.5"
    assert "confidence sequence" in row["intervals"]
    assert row["complete"]
    assert row["plain"]["n"] == 128
    assert "until upper" in (out / "report.md").read_text()
    assert "confidence sequence" in (out / "report.html").read_text()
