"""What an audit may spend on an example."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from unmask.errors import UnmaskError

__all__ = ["BUDGETS", "Budget", "budget_of", "timed"]


@dataclass(frozen=True)
class Budget:
    """Gradients, targets and queries that an example still standing may cost."""

    steps: int
    restarts: int
    targets: int
    queries: int
    views: int  # that are used, the best first
    copy: int  # steps of each round of fitting a copy
    seconds: float | None = None  # that an example's adaptive attack may take, however many steps that is


BUDGETS = {
    "quick": Budget(steps=30, restarts=1, targets=0, queries=200, views=1, copy=40),
    "standard": Budget(steps=100, restarts=2, targets=4, queries=2000, views=2, copy=80),
    "thorough": Budget(steps=200, restarts=4, targets=9, queries=5000, views=3, copy=160),
}


def budget_of(name: str) -> Budget:
    """One of :data:`BUDGETS`, or seconds for each example, such as "2s" or "0.5s".

    Raises UnmaskError for anything else.

    >>> budget_of("quick").steps, budget_of("2s").seconds
    (30, 2.0)
    """
    if name in BUDGETS:
        return BUDGETS[name]
    if (found := re.fullmatch(r"(\d+(\.\d*)?|\.\d+)s", name)) and float(found[1]) > 0:
        return replace(BUDGETS["standard"], seconds=float(found[1]))
    raise UnmaskError(f"no budget {name!r}; budgets: {', '.join(BUDGETS)}, or seconds for each example, such as 2s")


def timed(budget: str) -> tuple[str, ...]:
    """The attacks of which that budget makes the result depend on the machine.

    >>> timed("quick"), timed("2s")
    ((), ('adaptive',))
    """
    return ("adaptive",) if budget_of(budget).seconds else ()
