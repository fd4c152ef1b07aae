"""README's tables are what the kept figures say, and these are what a run's report says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools import readme_tables
from tools.readme_tables import SOURCES, main, stored, take, written

ROOT = Path(__file__).parents[1]
PAGE = "before\n<!-- table: digits -->\nold\n<!-- /table -->\nafter\n"


def accuracy(value: float) -> dict[str, Any]:
    return {"value": value, "low": value / 2, "high": (1 + value) / 2, "n": 200, "attack": "worst of a, b"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a run of the suite, one of another suite, and something else."""
    row = {"case": "thermometer-digits", "obfuscation": ["shattered"], "complete": True, "seconds": 3.0}
    row |= {"threat": {"norm": "linf", "eps": 0.15, "unit": "raw"}}
    row |= {"clean": accuracy(0.96), "plain": accuracy(0.945), "adaptive": accuracy(0.0)}
    about = {"command": "reproduce", "n": 200, "seed": 0, "started": "2026-01-02T03:04:05+00:00"}
    about |= {"versions": {"unmask": "0.1.0"}, "hardware": {"cores": 2}, "config": {"command": "reproduce"}}
    for name, suite in (("defenses", "digits"), ("more", "mnist")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({**about, "suite": suite}))
        (folder / "report.json").write_text(json.dumps({"schema": "unmask.table/3", "rows": [row]}))
        (folder / "report.md").write_text("# Gradients are masked in 1 of 1 defenses\n")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "README.md").write_text(PAGE)
    return tmp_path


def test_tables_of_this_repository_are_what_the_kept_figures_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_a_run_becomes_figures_and_these_a_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from", str(runs / "runs")], runs) == 0
    assert capsys.readouterr().out == f"digits: figures of {runs / 'runs' / 'defenses'}\n"
    assert (runs / "README.md").read_text().splitlines() == [
        "before",
        "<!-- table: digits -->",
        "",
        "| case | obfuscation | threat | clean | plain attack | adaptive attack |",
        "|---|---|---|---|---|---|",
        "| thermometer-digits | shattered | Linf 0.15 | 96.0 % [48.0, 98.0] | 94.5 % [47.2, 97.2] "
        "| 0.0 % [0.0, 50.0] |",
        "",
        "<!-- /table -->",
        "after",
    ]
    kept = json.loads((runs / "docs/figures/digits.json").read_text())
    assert (kept["n"], kept["seed"], kept["date"], kept["versions"]) == (200, 0, "2026-01-02", {"unmask": "0.1.0"})
    assert kept["rows"][0]["clean"] == {"value": 0.96, "low": 0.48, "high": 0.98, "n": 200}
    assert main(["--check"], runs) == 0


def test_an_edit_by_hand_is_found_with_what_to_do(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--from", str(runs / "runs")], runs)
    page = runs / "README.md"
    page.write_text(page.read_text().replace("94.5 %", "95.5 %"))
    edited = page.read_text()
    capsys.readouterr()
    assert main(["--check"], runs) == 1
    assert "run `python tools/readme_tables.py`" in capsys.readouterr().err
    assert page.read_text() == edited
    assert main([], runs) == 0
    assert main(["--check"], runs) == 0


@pytest.mark.parametrize(
    "page", ["no table\n", PAGE.replace("digits", "masked-model"), PAGE + "<!-- table: digits -->\n"]
)
def test_marks_and_kept_figures_are_the_same(runs: Path, page: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--from", str(runs / "runs")], runs)
    (runs / "README.md").write_text(page)
    assert main([], runs) == 1
    assert "tables marked" in capsys.readouterr().err
    assert (runs / "README.md").read_text() == page


def test_an_unfinished_run_gives_no_figures(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "runs" / "defenses" / "report.json"
    path.write_text(path.read_text().replace('"complete": true', '"complete": false'))
    assert main(["--from", str(runs / "runs")], runs) == 1
    assert "thermometer-digits is incomplete: finish the run" in capsys.readouterr().err
    assert not (runs / "docs").exists()


def test_a_folder_without_such_a_run_is_said(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(take(runs / "runs" / "more", runs / "docs" / "figures")) == []
    assert stored(runs / "docs" / "figures") == {}
    assert written("no marks\n", {}) == "no marks\n"


def test_figures_of_another_form_are_refused(tmp_path: Path) -> None:
    (tmp_path / "digits.json").write_text('{"schema": "unmask.figures/0"}')
    with pytest.raises(ValueError, match=r"digits.json holds no figures of a table \(unmask.figures/1\)"):
        stored(tmp_path)


def test_an_audit_is_shown_as_in_the_terminal() -> None:
    source = SOURCES["masked-model"]
    assert source.fits({"config": {"command": "audit", "target": "examples/masked_model.py:build"}, "command": "audit"})
    found = {"kind": "stochastic", "module": "drop", "where": "a.py:27 x", "remedy": "EOT over 2 draws", "more": 1}
    report = {"accuracy": dict.fromkeys(("clean", "plain", "adaptive"), accuracy(0.0)), "findings": [found]}
    kept = source.figures(report | {"masking": "masked"}, "# a\\_b keeps 0 %\n\nIt is masked.\n\n| more |\n")
    assert source.text(kept).splitlines() == [
        "",
        "```",
        "  masking    masked",
        "  clean       0.0 % [0.0, 50.0]",
        "  plain       0.0 % [0.0, 50.0]",
        "  adaptive    0.0 % [0.0, 50.0]",
        "",
        "a_b keeps 0 %",
        "It is masked.",
        "",
        "Gradient masking found.",
        "  stochastic drop: a.py:27 x",
        "             remedy: EOT over 2 draws",
        "```",
        "",
    ]


@pytest.mark.parametrize(
    ("threat", "text"),
    [
        ({"norm": "linf", "eps": 8 / 255, "unit": "raw"}, "Linf 8/255"),
        ({"norm": "l2", "eps": 0.005, "unit": "per_dim"}, "L2 0.005 per_dim"),
    ],
)
def test_balls_are_written_with_their_unit(threat: dict[str, Any], text: str) -> None:
    assert readme_tables.ball(threat) == text
