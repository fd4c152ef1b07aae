from __future__ import annotations

import re
from queue import Queue

import pytest

from unmask.cli import progress as command_line
from unmask.diagnosis.behaviour.clock import at
from unmask.progress import Level, on_progress, track


def test_loops_within_loops_are_told_from_the_outermost() -> None:
    seen: list[tuple[Level, ...]] = []
    with on_progress(seen.append):
        for _ in track("ab", "outer"):
            for _ in track([1, 2], "inner"):
                pass
    outer, inner = ([Level(what, done, 2) for done in (0, 1)] for what in ("outer", "inner"))
    assert seen == [(o, *rest) for o in outer for rest in ((), (inner[0],), (inner[1],))]


def test_a_loop_that_is_left_is_forgotten() -> None:
    seen: list[tuple[Level, ...]] = []
    with on_progress(seen.append):
        for _ in track(range(3), "left"):
            break
        with pytest.raises(ZeroDivisionError):
            [1 // i for i in track(range(3), "failing")]
        list(track(range(1), "last"))
    assert seen[-1] == (Level("last", 0, 1),)


def test_unwatched_it_is_the_items_alone() -> None:
    assert list(track(range(3), "step")) == [0, 1, 2]


def test_without_a_terminal_lines_say_soon_and_regularly_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: Queue[str] = Queue()
    monkeypatch.setattr(command_line, "_FIRST", 0.1)
    monkeypatch.setattr(command_line, "_EVERY", 0.05)
    monkeypatch.setattr(command_line, "warn", printed.put)
    with command_line.planning("load"), at(86_400.0):  # as where an audit asks a model at another time
        assert printed.get(timeout=60) == "load (0 s)"
        for _ in track(range(1), "step"):
            lines = [printed.get(timeout=60)]
            while lines[-1].startswith("load"):  # a line that was due before the step began
                lines.append(printed.get(timeout=60))
            lines += [printed.get(timeout=60) for _ in range(2)]
    assert all(re.fullmatch(r"step 1 of 1 \(\d+ s\)", line) for line in lines[-3:])
