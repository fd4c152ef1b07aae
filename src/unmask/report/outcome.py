"""The rule that turns a case's numbers into one word."""

from __future__ import annotations

from enum import StrEnum

from unmask.statistics import Accuracy, Gap

__all__ = ["LEVEL", "MARGIN", "Outcome", "outcome"]

LEVEL = 0.05  # of the paired test
MARGIN = 0.05  # two sound attacks may differ by a few points without anything being hidden


class Outcome(StrEnum):
    """What became of a defense."""

    FALLS = "falls"  # the adaptive attacks beat the plain one, and at most half of its figure is left
    WEAKENED = "weakened"  # they beat it, but more than half is left
    WEAK = "weak"  # nothing hidden: the plain attack alone takes more than half of the clean accuracy
    STANDS = "stands"  # nothing hidden, and at least half of the clean accuracy is left
    UNDECIDED = "undecided"  # a difference that chance may explain: too few examples
    UNFINISHED = "unfinished"


def outcome(clean: Accuracy, plain: Accuracy, adaptive: Accuracy | None, gap: Gap | None) -> Outcome:
    """Of a finished case; ``gap`` is from the plain attacks to the adaptive ones alone.

    None stands for a case that asks for no adaptive attack.

    >>> from unmask.statistics import accuracy, gap
    >>> before, after = [1] * 9, [0] * 9
    >>> str(outcome(accuracy(before), accuracy(before), accuracy(after), gap(before, after)))
    'falls'
    """
    if adaptive and gap and gap.value >= MARGIN:
        if gap.p >= LEVEL:
            return Outcome.UNDECIDED
        return Outcome.FALLS if adaptive.value <= plain.value / 2 else Outcome.WEAKENED
    return Outcome.WEAK if (adaptive or plain).value < clean.value / 2 else Outcome.STANDS
