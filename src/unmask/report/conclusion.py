"""The rule that turns a case's numbers into one word."""

from __future__ import annotations

from enum import StrEnum

from unmask.statistics import Accuracy, Gap

__all__ = ["LEVEL", "MARGIN", "Conclusion", "conclusion"]

LEVEL = 0.05  # of the paired test
MARGIN = 0.05  # of the clean accuracy: two sound attacks may differ by a little without anything being hidden


class Conclusion(StrEnum):
    """What became of a defense."""

    FALLS = "falls"  # the adaptive attacks beat the plain one, and at most half of its figure is left
    WEAKENED = "weakened"  # they beat it, but more than half is left
    WEAK = "weak"  # nothing found hidden, and less than half of the clean accuracy is left
    STANDS = "stands"  # nothing found hidden, and at least half of the clean accuracy is left
    UNDECIDED = "undecided"  # a difference that chance may explain, or nothing to attack: too few examples
    UNFINISHED = "unfinished"


def conclusion(clean: Accuracy, plain: Accuracy | None, adaptive: Accuracy | None, gap: Gap | None) -> Conclusion:
    """Of a finished case; ``gap`` is from the plain attacks to the adaptive ones alone.

    None stands for attacks that the case does not ask for.

    >>> from unmask.statistics import accuracy, gap
    >>> before, after = [1] * 9, [0] * 9
    >>> str(conclusion(accuracy(before), accuracy(before), accuracy(after), gap(before, after)))
    'falls'
    """
    if not clean.value:
        return Conclusion.UNDECIDED  # nothing to attack
    if plain and adaptive and gap and gap.value >= MARGIN * clean.value:
        if gap.p >= LEVEL:
            return Conclusion.UNDECIDED
        return Conclusion.FALLS if adaptive.value <= plain.value / 2 else Conclusion.WEAKENED
    left = adaptive or plain
    return Conclusion.WEAK if left and left.value < clean.value / 2 else Conclusion.STANDS
