"""Repeated searches on the examples that are not yet broken, until the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from unmask.attacks.combined.ensemble import Ensemble, worst
from unmask.attacks.problem import Attack, Problem

__all__ = ["Doubling", "TimeLimited"]

_MOST = 1000


@dataclass(frozen=True)
class TimeLimited:
    """The attacks ``turn(0)``, ``turn(1)`` ... as an ensemble, as long as there is time for another like the last.

    The first one always runs to its end. The time of broken examples is spent on the robust ones, so that the result
    depends on the machine; the judge is the same as always.

    Args:
        seconds: for each example.
        turn: the attack of a turn, which has randomness of its own; such as ``Doubling``.
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


@dataclass(frozen=True)
class Doubling:
    """Turns of :class:`TimeLimited`: ``first``, then ``again`` with 1, 2, 2, 4, 4, 8 ... times its steps.

    Args:
        first: the attack of turn 0.
        again: an attack with ``steps``; or one made of such attacks, by ``Ensemble``, ``WithView`` or ``Snapped``.

    >>> from unmask.attacks.aliases import pgd
    >>> turns = Doubling(pgd(5), pgd(10))
    >>> [turns(number).steps for number in range(6)]
    [5, 10, 20, 20, 40, 40]
    """

    first: Attack
    again: Attack

    def __call__(self, number: int) -> Attack:
        return _longer(self.again, 2 ** (number // 2)) if number else self.first


def _longer(attack: Any, times: int) -> Any:
    if isinstance(attack, Ensemble):
        return replace(attack, attacks=tuple(_longer(one, times) for one in attack.attacks))
    if hasattr(attack, "attack"):
        return replace(attack, attack=_longer(attack.attack, times))
    return replace(attack, steps=times * attack.steps)
