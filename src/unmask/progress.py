"""Progress reporting of long computations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol, TypeVar

__all__ = ["Level", "on_progress", "stage", "track"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Items(Sized, Iterable[T_co], Protocol[T_co]):
    """What can be gone through and says how many there are."""


class Level(NamedTuple):
    """One of the loops that are running, or one of the stages of a computation."""

    what: str
    done: int
    total: int


Watcher = Callable[[tuple[Level, ...]], None]
"""Called with the running loops, the outermost first, each time one of them takes a step."""

_watcher: ContextVar[Watcher | None] = ContextVar("unmask_watcher", default=None)
_running: ContextVar[tuple[Level, ...]] = ContextVar("unmask_running", default=())


@contextmanager
def on_progress(watcher: Watcher) -> Iterator[None]:
    """Call ``watcher`` at the steps of all :func:`track` loops inside this block."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def track(items: Items[T], what: str) -> Iterator[T]:
    """The items one after another; the watcher gets the number of each item and their total.

    >>> with on_progress(lambda levels: print(*levels)):
    ...     for _ in track(range(2), "step"): pass
    Level(what='step', done=0, total=2)
    Level(what='step', done=1, total=2)
    """
    watcher, outer = _watcher.get(), _running.get()
    if watcher is None:
        yield from items
        return
    try:
        for done, item in enumerate(items):
            levels = (*outer, Level(what, done, len(items)))
            _running.set(levels)
            watcher(levels)
            yield item
    finally:
        _running.set(outer)


@contextmanager
def stage(what: str, done: int, total: int) -> Iterator[None]:
    """The stage that follows ``done`` others of ``total``; the watcher gets it when the stage begins.

    >>> with on_progress(lambda levels: print(*levels)), stage("probe", 1, 4):
    ...     for _ in track(range(1), "step"): pass
    Level(what='probe', done=1, total=4)
    Level(what='probe', done=1, total=4) Level(what='step', done=0, total=1)
    """
    watcher, outer = _watcher.get(), _running.get()
    if watcher is None:
        yield
        return
    levels = (*outer, Level(what, done, total))
    _running.set(levels)
    try:
        watcher(levels)
        yield
    finally:
        _running.set(outer)
