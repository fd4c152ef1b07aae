"""Wrong inputs and bugs are told apart: by what is raised, by the line that is printed, by the exit code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import unmask
from tests.commands import unmask as command
from tests.untrusted.test_fuzz import folder
from unmask.data import DataError
from unmask.types import InvalidModelOutput

PLACES = ["unmask.report.table.table", "unmask.run_files._run", "unmask.report.run_folder._case"]


@pytest.mark.parametrize("kind", [unmask.UnmaskError, InvalidModelOutput, DataError])
def test_it_says_problem_and_remedy_and_goes_between_processes(kind: type[unmask.UnmaskError]) -> None:
    error = pickle.loads(pickle.dumps(kind("no images", "give some")))
    assert type(error) is kind
    assert isinstance(error, ValueError)
    assert (error.problem, error.remedy, str(error)) == ("no images", "give some", "no images: give some")
    assert str(kind("no images")) == "no images"


def test_a_wrong_input_has_its_remedy_apart() -> None:
    with pytest.raises(unmask.UnmaskError) as caught:
        unmask.Linf(0.1, "furlongs")
    assert caught.value.problem == "unknown unit 'furlongs'"
    assert caught.value.remedy.startswith("use one of raw")


@pytest.mark.parametrize(
    "place", ["unmask.report.table.table", "unmask.run_files._run", "unmask.report.run_folder._case"]
)
@pytest.mark.parametrize("kind", [KeyError, TypeError, ValueError, AttributeError, RuntimeError])
def test_a_bug_is_no_broken_file(
    place: str,
    kind: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = folder(tmp_path / "run")

    def bug(*_: object) -> None:
        raise kind("of ours\nsecond line")

    monkeypatch.setattr(place, bug)
    assert command("report", str(run)) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"unmask: internal error: {kind.__name__}: ")
    assert line.endswith("please report it with the output of the same command under --debug")
    assert "Traceback" not in line
    assert "broken" not in line
    assert "damaged" not in line
    assert command("--debug", "report", str(run)) == 3
    assert "Traceback" in capsys.readouterr().err
