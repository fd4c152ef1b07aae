"""Whether a model's outputs depend on the time of the query."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unmask.diagnosis.behaviour.memory import differ
from unmask.diagnosis.instrumentation import keyed_query, preserve_buffers, share
from unmask.kinds import FindingKind
from unmask.randomness import Keys
from unmask.records import Finding
from unmask.state import is_users

__all__ = ["at", "by_the_clock"]

_LATER = (1.7, 13.3, 67.0, 601.0, 3_607.0, 40_009.0, 86_413.0, 7 * 86_413.0, 31_622_413.0)
"""Seconds after which the model is queried again: from another second to another year."""

_READING = 1e-4
"""Seconds that pass from one reading of the clock to the next, so that code that waits comes to an end."""

_SECONDS = ("time", "monotonic", "perf_counter", "process_time")
_BROKEN_DOWN = ("localtime", "gmtime", "ctime")


@torch.no_grad()
def by_the_clock(model: nn.Module, x: Tensor, keys: Keys) -> Iterator[Finding]:
    """A finding of kind "clock" where the answers to images (B, C, H, W) differ from one time to another.

    Python's clocks are replaced meanwhile. A model that differs at the same time too is not meant.
    """

    def outputs_at(later: float) -> Any:
        with preserve_buffers(model), at(start + later):
            return keyed_query(model, x, keys)

    start = time.time()
    now = outputs_at(0.0)
    if differ(now, outputs_at(0.0)).any():
        return
    moved = {later: share(found) for later in _LATER if (found := differ(now, outputs_at(later))).any()}
    if moved:
        yield Finding(
            kind=FindingKind.CLOCK,
            module="",
            where="the model's answer: it depends on the time at which it is asked",
            evidence={f"images, after {later:g} s": part for later, part in moved.items()},
            remedy="let the output depend on the image alone",
        )


@contextmanager
def at(seconds: float) -> Iterator[None]:
    """Let Python's clocks start at a time, in seconds since 1970: those of ``time`` and ``datetime``, also under names
    that code of the user has imported.

    >>> with at(86_400.0): datetime.datetime.now(datetime.timezone.utc).day, int(time.time())
    (2, 86400)
    """
    clocks = _clocks(seconds)
    places = [vars(time), vars(datetime)]
    places += [vars(module) for name, module in [*sys.modules.items()] if module and is_users(name)]
    before = [
        (place, name, value)
        for place in places
        for name, value in [*place.items()]
        if id(value) in clocks and not name.startswith("__")
    ]
    try:
        for place, name, value in before:
            place[name] = clocks[id(value)]
        yield
    finally:
        for place, name, value in before:
            place[name] = value


def _clocks(seconds: float) -> dict[int, Any]:
    """By the identity of what is replaced."""
    readings = 0

    def now() -> float:
        nonlocal readings
        readings += 1
        return seconds + _READING * readings

    original = datetime.datetime
    broken_down = {name: getattr(time, name) for name in _BROKEN_DOWN}

    class Datetime(original):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return original.fromtimestamp(now(), tz)

        @classmethod
        def utcnow(cls) -> datetime.datetime:
            return original.fromtimestamp(now(), datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> datetime.datetime:
            return original.fromtimestamp(now())

    class Date(datetime.date):
        @classmethod
        def today(cls) -> Date:
            return cls.fromtimestamp(now())

    replaced: dict[int, Any] = {id(original): Datetime, id(datetime.date): Date}
    for name in _SECONDS:
        replaced[id(getattr(time, name))] = now
        replaced[id(getattr(time, f"{name}_ns"))] = lambda: int(1e9 * now())
    for name, clock in broken_down.items():
        replaced[id(getattr(time, name))] = lambda at=None, clock=clock: clock(now() if at is None else at)
    return replaced
