"""What an audit from Python returns: typed, equal to report.json, and with the files of the run behind it."""

from __future__ import annotations

import copy
import gc
import json
from dataclasses import FrozenInstanceError, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from torch import Tensor, nn

import unmask
from tests.commands import unmask as command
from tests.models import MEANS
from unmask.cases import find_case
from unmask.records import Finding
from unmask.report.audit_report import AuditReport
from unmask.report.verdict.masking import Masking

NAMES = {"examples", "records.jsonl", "report.html", "report.json", "report.md", "run.json"}


class Rounded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = find_case("plain-digits").load()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net((x * 16).round() / 16)
        return answer


@pytest.fixture(scope="module")
def report() -> AuditReport:
    return unmask.audit(Rounded().eval(), "digits", unmask.Linf(0.15), n=16, budget="quick")


def folder_of(report: AuditReport) -> Path:
    assert report.files is not None
    return report.files.folder


def text_of(report: AuditReport) -> str:
    return (folder_of(report) / "report.json").read_text(encoding="utf-8")


def test_it_is_typed_and_is_report_json_to_the_byte(report: AuditReport) -> None:
    assert (report.target, report.data, report.n, report.masking) == ("Rounded", "digits", 16, Masking.MASKED)
    assert report.accuracy.plain is not None
    assert report.accuracy.plain.value > 0.5 > report.accuracy.adaptive.value
    assert report.accuracy.clean.n == 16
    (finding,) = report.findings
    assert isinstance(finding, Finding)
    assert finding.kind == "shattered"
    assert finding.remedy.startswith("straight_through (")
    assert json.dumps(report.to_dict(), indent=1) + "\n" == text_of(report)
    assert AuditReport.from_dict(report.to_dict()) == report
    with pytest.raises(FrozenInstanceError):
        report.n = 17  # type: ignore[misc]


def test_its_few_lines_say_what_was_found(report: AuditReport) -> None:
    title, masking, clean, plain, adaptive, finding = repr(report).splitlines()
    assert title == "audit of Rounded on digits, L∞ 0.15 raw, n = 16"
    assert masking.split() == ["masking", "masked"]
    assert [line.split()[0] for line in (clean, plain, adaptive)] == ["clean", "plain", "adaptive"]
    low, high = 100 * report.accuracy.adaptive.low, 100 * report.accuracy.adaptive.high
    assert adaptive.endswith(f"{100 * report.accuracy.adaptive.value:.1f} % [{low:.1f}, {high:.1f}]")
    assert finding.split()[0] == "shattered"
    assert "round() / 16); remedy: straight_through" in finding
    console = Console(file=StringIO(), width=200)
    console.print(report)
    assert console.file.getvalue().rstrip() == repr(report)  # type: ignore[attr-defined]


def test_what_is_doubtful_is_shown_and_a_page_of_a_notebook_is_no_place_for_code(report: AuditReport) -> None:
    evil = replace(report, target="<script>a</script>", warnings=("<b>few",), reason="why [red]not[/red]")
    assert "  warning    <b>few" in repr(evil)
    assert "masking    masked: why [red]not[/red]" in repr(evil)
    page = evil._repr_html_()
    assert "&lt;script&gt;a&lt;/script&gt;" in page
    assert "<th>warning</th><td>&lt;b&gt;few</td>" in page
    assert "<script" not in page
    console = Console(file=StringIO(), width=200)
    console.print(evil)
    assert "why [red]not[/red]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_saved_the_run_is_there_and_the_page_is_the_same(report: AuditReport, tmp_path: Path) -> None:
    page = report.save(tmp_path / "kept" / "run")
    assert page == tmp_path / "kept" / "run" / "report.html"
    assert {path.name for path in page.parent.iterdir()} == NAMES
    before = {path.name: path.read_bytes() for path in page.parent.iterdir() if path.is_file()}
    assert command("report", str(page.parent)) == 0
    assert {path.name: path.read_bytes() for path in page.parent.iterdir() if path.is_file()} == before
    assert AuditReport.read(page.parent) == report
    with pytest.raises(ValueError, match="is not an empty folder"):
        report.save(page.parent)


def test_its_run_says_that_no_command_can_do_it_again(
    report: AuditReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = report.save(tmp_path / "run")
    assert json.loads((page.parent / "run.json").read_text())["config"]["made_by"] == "unmask.audit"
    for words in (["verify"], ["verify", "--no-examine"], ["rerun", "--out", str(tmp_path / "again")]):
        capsys.readouterr()
        assert command(words[0], str(page.parent), *words[1:]) == 2
        assert "the run was made by unmask.audit, of a model in memory" in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_is_given_stays_and_another_goes_with_the_last_report(
    report: AuditReport, tmp_path: Path
) -> None:
    names: dict[str, Any] = {}
    exec(MEANS, names)
    model, ball = names["Means"]().eval(), unmask.Linf(0.15)
    kept = unmask.audit(model, "digits", ball, n=4, budget="quick", out=str(tmp_path / "run"))
    assert folder_of(kept) == tmp_path / "run"
    lost = unmask.audit(model, "digits", ball, n=4, budget="quick")
    place, twin = folder_of(lost), copy.copy(lost)
    del kept, lost
    gc.collect()
    assert {path.name for path in place.iterdir()} == NAMES
    del twin
    gc.collect()
    assert not place.exists()
    assert {path.name for path in (tmp_path / "run").iterdir()} == NAMES
    with pytest.raises(ValueError, match="the files of this run are gone"):
        replace(report, files=None).save(tmp_path / "new")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "unmask.audit/1"}, "version 'unmask.audit/1'"),
        ({"accuracy": {"clean": None, "plain": None, "adaptive": None}}, "not finished"),
        ({"masking": "perhaps"}, "perhaps"),
        ({"lint": [{"kind": "x"}]}, "missing"),
        ({"more": 1}, "more"),
    ],
)
def test_another_file_is_no_report(report: AuditReport, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"not the report of an audit: .*{words}"):
        AuditReport.from_dict({**report.to_dict(), **change})


def test_a_folder_without_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no report\.json"):
        AuditReport.read(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ValueError, match=r"report\.json is damaged"):
        AuditReport.read(tmp_path)
