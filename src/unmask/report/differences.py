"""Where two pieces of plain data differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["MEASURED", "differences", "listed"]

MEASURED = ("audit", "setup")
"""The parts of a case that hold numbers measured on the model, which other hardware rounds differently."""

_CLOSE = 1e-3
"""By how much such numbers may differ."""


def differences(before: Any, now: Any, path: str = "", slack: float = 0.0) -> Iterator[str]:
    """Paths of what differs; numbers in the parts :data:`MEASURED` need only be close.

    >>> [*differences({"n": 3, "audit": {"left": 0.5, "findings": []}}, {"n": 4, "audit": {"left": 0.5001}})]
    ['n', 'audit.findings']
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys((*before, *now)):
            inner = f"{path}.{name}" if path else str(name)
            if name not in before or name not in now:
                yield inner
            else:
                loose = _CLOSE if not path and name in MEASURED else slack
                yield from differences(before[name], now[name], inner, loose)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (one, two) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, two, f"{path}.{place}", slack)
    elif not _equal(before, now, slack):
        yield path


def listed(what: str, names: list[str], max_names: int = 3) -> str:
    """A few names and how many more there are; empty for none.

    >>> listed("missing", ["a", "b", "c", "d"]), listed("missing", [])
    ('missing: a, b, c and 1 more', '')
    """
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return f"{what}: {', '.join(names[:max_names])}{more}" if names else ""


def _equal(before: Any, now: Any, slack: float) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (before, now)]
    if not all(numbers):
        return type(before) is type(now) and bool(before == now)
    if math.isnan(before) or math.isnan(now):
        return math.isnan(before) and math.isnan(now)
    return before == now or math.isclose(before, now, rel_tol=slack, abs_tol=slack)
