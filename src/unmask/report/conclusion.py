"""The rule that turns a case's numbers into one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from unmask.statistics import Accuracy, Gap

__all__ = ["LEVEL", "MARGIN", "Conclusion", "conclusion", "confirmed", "gained"]

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


def gained(clean: Accuracy | None, gap: Gap | None) -> bool:
    """Whether the adaptive attacks alone beat the plain ones, by enough and by more than chance."""
    least = MARGIN * (clean.value if clean else 1.0)
    return gap is not None and gap.value >= least and gap.p < LEVEL


def confirmed(
    findings: Sequence[Mapping[str, Any]], clean: Accuracy | None, gap: Gap | None
) -> list[Mapping[str, Any]]:
    """The findings that matter: missing and wrong gradients always, others where they cost the plain attack something.

    A random or steep model that the plain attack breaks as well as any other hides nothing.
    """
    return [found for found in findings if found["kind"] == "shattered" or gained(clean, gap)]


def conclusion(
    clean: Accuracy, plain: Accuracy | None, adaptive: Accuracy | None, gap: Gap | None, *, sound: bool = False
) -> Conclusion:
    """Of a finished case; ``gap`` is from the plain attacks to the adaptive ones alone.

    None stands for attacks that the case does not ask for. ``sound`` says that somebody has looked at the gradients
    and found nothing wrong: then a stronger attack is no more than that.

    >>> from unmask.statistics import accuracy, gap
    >>> before, after = [1] * 9, [0] * 9
    >>> str(conclusion(accuracy(before), accuracy(before), accuracy(after), gap(before, after)))
    'falls'
    """
    if not clean.value:
        return Conclusion.UNDECIDED  # nothing to attack
    if not sound and plain and adaptive and gap and gap.value >= MARGIN * clean.value:
        if not gained(clean, gap):
            return Conclusion.UNDECIDED
        return Conclusion.FALLS if adaptive.value <= plain.value / 2 else Conclusion.WEAKENED
    left = adaptive or plain
    return Conclusion.WEAK if left and left.value < clean.value / 2 else Conclusion.STANDS
