"""Repeated searches on the examples that are not yet broken, until the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from unmask.attacks.combined.ensemble import worst
from unmask.attacks.problem import Attack, Problem

__all__ = ["TimeLimited"]

_MOST = 1000


@dataclass(frozen=True)
class TimeLimited:
    """The attacks ``turn(0)``, ``turn(1)`` ... as an ensemble, as long as there is time for another like the last.

    The first one always runs to its end. The time of broken examples is spent on the robust ones, so that the result
    depends on the machine; the judge is the same as always.

    Args:
        seconds: for each example.
        turn: the attack of a turn, which has randomness of its own.
        clock: seconds that have passed.
        draws: as of :class:`unmask.Ensemble`.

    >>> from unmask.attacks.aliases import pgd
    >>> two_seconds = TimeLimited(2.0, lambda turn: pgd(steps=20 * 2**turn))
    """

    seconds: float
    turn: Callable[[int], Attack]
    clock: Callable[[], float] = time.monotonic
    draws: int = 1

    def __call__(self, problem: Problem) -> Tensor:
        return worst(problem, self._turns(self.clock() + self.seconds * len(problem.x)), _MOST, self.draws)

    def _turns(self, end: float) -> Iterator[Attack]:
        before = self.clock()
        for number in range(_MOST):
            yield self.turn(number)
            now = self.clock()
            if now + (now - before) > end:
                return
            before = now
