"""Intervals of accuracies, paired tests, and both for samples whose size was not settled beforehand."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from scipy.special import bdtr, bdtrc, betainc, betaincinv, betaln, xlog1py, xlogy

from unmask.errors import UnmaskError

__all__ = [
    "ANYTIME",
    "FIXED",
    "Accuracy",
    "Difference",
    "PairedTest",
    "StopRule",
    "accuracy",
    "difference",
    "paired_test",
    "sample_size",
]

FIXED = "95 % Clopper-Pearson"
ANYTIME = "95 % confidence sequence (beta-binomial mixture), valid whenever the run was stopped"


@dataclass(frozen=True)
class Accuracy:
    """A mean over n examples with its 95 % interval, and the attack it was measured under."""

    value: float
    low: float
    high: float
    n: int
    attack: str | None = None


@dataclass(frozen=True)
class PairedTest:
    """Mean difference of two paired accuracies over n examples, and how easily chance explains it."""

    value: float
    p: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of first minus second over n pairs, its 95 % interval, and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    p: float
    n: int


def accuracy(
    right: Sequence[float], attack: str | None = None, level: float = 0.95, *, anytime: bool = False
) -> Accuracy:
    """Mean of per-example shares in [0, 1] with the Clopper-Pearson interval (Biometrika, 1934).

    Shares between 0 and 1, as random defenses give, have at most the variance of a coin of the same
    mean, so that the interval is conservative for them. With ``anytime`` it is that of Robbins'
    beta-binomial mixture (Ann. Math. Stat., 1970), whose intervals for n = 1, 2, ... hold all at once, so that n
    may depend on what was seen; it holds for shares too. Raises UnmaskError without examples.

    >>> a = accuracy([1] * 10)
    >>> round(a.low, 4), a.high
    (0.6915, 1.0)
    >>> round(accuracy([1] * 10, anytime=True).low, 4)
    0.623
    """
    n = len(right)
    if not n:
        raise UnmaskError("no examples for an accuracy", "use n >= 1")
    k = float(sum(right))
    return Accuracy(k / n, *(_mixture if anytime else _clopper_pearson)(k, n, 1 - level), n, attack)


def paired_test(before: Sequence[float], after: Sequence[float], *, anytime: bool = False) -> PairedTest:
    """How far shares in [0, 1] fall from ``before`` to ``after``, on the same examples in the same order.

    ``p`` is that of the one-sided exact sign test: the probability of at least as many falls among the
    examples that differ, were a rise as likely. Between zeros and ones it is McNemar's exact test
    (Psychometrika, 1947). With ``anytime`` it is one over the likelihood ratio of a mixture of odds in favour of
    falls, a p-value whatever n was stopped at. Raises UnmaskError without examples or with different numbers of them.

    >>> paired_test([1, 1, 1, 1, 0], [0, 0, 0, 1, 0])
    PairedTest(value=0.6, p=0.125, n=5)
    """
    falls, rises, differences = _paired(before, after)
    n = len(differences)
    if anytime:
        p = math.exp(-max(0.0, _log_bet(falls, rises)))
    else:
        p = float(bdtrc(falls - 1, falls + rises, 0.5)) if falls else 1.0
    return PairedTest(sum(differences) / n, p, n)


def difference(
    first: Sequence[float], second: Sequence[float], level: float = 0.95, *, anytime: bool = False
) -> Difference:
    """How much larger shares in [0, 1] are in ``first`` than in ``second``, for the same examples in the same order.

    ``p`` is that of the two-sided exact sign test, McNemar's for zeros and ones. The difference is psi (2 theta - 1):
    psi is how much the examples differ, theta the part of it in favour of ``first``. Its interval combines
    exact ones of theta (four fifths of the error) and psi (one fifth), so that it covers with at least ``level``; it
    leaves out zero, for zeros and ones, only where ``p`` is below 1 - level. With ``anytime`` all of it holds
    whatever n was stopped at. Raises UnmaskError without examples or with different numbers of them.

    >>> d = difference([1] * 90 + [0] * 10, [1] * 60 + [0] * 40)
    >>> d.value, round(d.low, 3), round(d.high, 3), d.p < 1e-8
    (0.3, 0.143, 0.431, True)
    """
    more, less, differences = _paired(first, second)
    n, error = len(differences), 1 - level
    up, down = sum(d for d in differences if d > 0), -sum(d for d in differences if d < 0)
    interval = _mixture if anytime else _clopper_pearson
    odds = interval(up, up + down, 0.8 * error) if up + down > 0 else (0.0, 1.0)
    moved = interval(up + down, n, 0.2 * error)
    low, high = (2 * theta - 1 for theta in odds)
    low, high = low * moved[low < 0], high * moved[high > 0]
    if anytime:
        p = min(1.0, 2 * math.exp(-max(0.0, _log_bet(max(more, less), min(more, less)))))
    else:
        p = min(1.0, 2 * float(bdtr(min(more, less), more + less, 0.5))) if more + less else 1.0
    return Difference(sum(differences) / n, low, high, p, n)


def sample_size(value: float, width: float, level: float = 0.95, *, anytime: bool = False) -> int:
    """Examples needed for an interval no wider than ``width`` where an accuracy of ``value`` is found.

    Raises UnmaskError unless 0 <= value <= 1 and 1e-4 <= width < 1.

    >>> sample_size(0.05, 0.02)
    1927
    """
    if not (0 <= value <= 1 and 1e-4 <= width < 1):
        raise UnmaskError(f"accuracy {value:g} and width {width:g}", "give shares, 0 to 1, the width from 0.0001")
    interval = _mixture if anytime else _clopper_pearson

    def too_wide(n: int) -> bool:
        low, high = interval(value * n, n, 1 - level)
        return high - low > width

    few, many = 0, 1
    while too_wide(many):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if too_wide(middle) else (few, middle)
    return many


@dataclass(frozen=True)
class StopRule:
    """When enough examples are done: ``upper<0.05``, ``lower>0.5`` or ``width<0.02``, of an ``anytime`` interval.

    >>> StopRule.parse("upper<0.05").met(accuracy([0] * 128, anytime=True))
    True
    """

    name: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """The rule that ``text`` is; UnmaskError for any other text."""
        match = re.fullmatch(r"\s*(upper\s*<|lower\s*>|width\s*<)\s*([0-9.]+(?:e-?[0-9]+)?)\s*", text)
        try:
            rule = cls(match[1].strip("<> "), float(match[2])) if match else None
        except ValueError:
            rule = None
        if rule is None or not 0 < rule.bound < 1:
            raise UnmaskError(f"stop when {text!r}? Give upper<SHARE, lower>SHARE or width<SHARE, such as upper<0.05")
        return rule

    def __str__(self) -> str:
        return f"{self.name}{'>' if self.name == 'lower' else '<'}{self.bound:g}"

    def met(self, found: Accuracy) -> bool:
        """Whether the interval of ``found`` meets the rule."""
        if self.name == "lower":
            return found.low > self.bound
        return (found.high if self.name == "upper" else found.high - found.low) < self.bound


def _clopper_pearson(k: float, n: float, error: float) -> tuple[float, float]:
    low = float(betaincinv(k, n - k + 1, error / 2)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - error / 2)) if k < n else 1.0
    return low, high


def _mixture(k: float, n: float, error: float) -> tuple[float, float]:
    """Means p whose likelihood is more than ``error`` times that of a mean drawn from Beta(1/2, 1/2).

    The ratio is a martingale for coins of mean p, by Ville's inequality seldom above 1 / error at any time, and as it
    is convex in each share, it is a supermartingale for shares of mean p.
    """
    from scipy.optimize import brentq  # here, since every command would wait for it, and few need it

    drawn = float(betaln(k + 0.5, n - k + 0.5) - betaln(0.5, 0.5)) + math.log(error)

    def inside(p: float) -> float:
        return float(xlogy(k, p) + xlog1py(n - k, -p)) - drawn

    def edge(end: float) -> float:
        return float(brentq(inside, end, k / n, xtol=1e-12))

    tiny = 1e-15
    low = edge(tiny) if k > 0 and inside(tiny) < 0 else 0.0
    high = edge(1 - tiny) if k < n and inside(1 - tiny) < 0 else 1.0
    return low, high


def _log_bet(falls: int, rises: int) -> float:
    """Log of the likelihood of odds drawn from Beta(1/2, 1/2) above even ones, over that of even odds."""
    a, b = falls + 0.5, rises + 0.5
    above = float(betainc(b, a, 0.5))
    if above <= 0:
        return -math.inf
    return float(betaln(a, b) - betaln(0.5, 0.5)) + (falls + rises + 1) * math.log(2) + math.log(above)


def _paired(before: Sequence[float], after: Sequence[float]) -> tuple[int, int, list[float]]:
    n = len(before)
    if not n or n != len(after):
        raise UnmaskError(f"{n} and {len(after)} examples cannot be paired", "give the same examples twice, n >= 1")
    differences = [a - b for a, b in zip(before, after, strict=True)]
    return sum(d > 0 for d in differences), sum(d < 0 for d in differences), differences
