"""Intervals of accuracies and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import bdtrc, betaincinv

__all__ = ["Accuracy", "Gap", "accuracy", "gap"]


@dataclass(frozen=True)
class Accuracy:
    """A mean over n examples with its 95 % interval, and the attack it was measured under."""

    value: float
    low: float
    high: float
    n: int
    attack: str | None = None


@dataclass(frozen=True)
class Gap:
    """Mean difference of two paired accuracies over n examples, and how easily chance explains it."""

    value: float
    p: float
    n: int


def accuracy(right: Sequence[float], attack: str | None = None, level: float = 0.95) -> Accuracy:
    """Mean of per-example shares in [0, 1] with the Clopper-Pearson interval (Biometrika, 1934).

    Shares between 0 and 1, as random defenses give, have at most the variance of a coin of the same
    mean, so that the interval is conservative for them. Raises ValueError without examples.

    >>> a = accuracy([1] * 10)
    >>> round(a.low, 4), a.high
    (0.6915, 1.0)
    """
    n = len(right)
    if not n:
        raise ValueError("no examples to take an accuracy of: ask for n >= 1")
    k, tail = float(sum(right)), (1 - level) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return Accuracy(k / n, low, high, n, attack)


def gap(before: Sequence[float], after: Sequence[float]) -> Gap:
    """How far shares in [0, 1] fall from ``before`` to ``after``, on the same examples in the same order.

    ``p`` is that of the one-sided exact sign test: the probability of at least as many falls among the
    examples that differ, were a rise as likely. Between zeros and ones it is McNemar's exact test
    (Psychometrika, 1947). Raises ValueError without examples or with different numbers of them.

    >>> gap([1, 1, 1, 1, 0], [0, 0, 0, 1, 0])
    Gap(value=0.6, p=0.125, n=5)
    """
    n = len(before)
    if not n or n != len(after):
        raise ValueError(f"{n} and {len(after)} examples cannot be paired: give the same examples twice, n >= 1")
    pairs = list(zip(before, after, strict=True))
    falls, rises = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    p = float(bdtrc(falls - 1, falls + rises, 0.5)) if falls else 1.0
    return Gap(sum(a - b for a, b in pairs) / n, p, n)
