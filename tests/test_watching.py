from __future__ import annotations

import pytest

from unmask.watching import Level, counted, watching


def test_loops_within_loops_are_told_from_the_outermost() -> None:
    seen: list[tuple[Level, ...]] = []
    with watching(seen.append):
        for _ in counted("ab", "outer"):
            for _ in counted([1, 2], "inner"):
                pass
    outer, inner = ([Level(what, done, 2) for done in (0, 1)] for what in ("outer", "inner"))
    assert seen == [(o, *rest) for o in outer for rest in ((), (inner[0],), (inner[1],))]


def test_a_loop_that_is_left_is_forgotten() -> None:
    seen: list[tuple[Level, ...]] = []
    with watching(seen.append):
        for _ in counted(range(3), "left"):
            break
        with pytest.raises(ZeroDivisionError):
            [1 // i for i in counted(range(3), "failing")]
        list(counted(range(1), "last"))
    assert seen[-1] == (Level("last", 0, 1),)


def test_unwatched_it_is_the_items_alone() -> None:
    assert list(counted(range(3), "step")) == [0, 1, 2]
