"""The choice of a grid of grey levels for a model that answers otherwise between its levels than on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unmask.auditing.candidates import Way
from unmask.auditing.choose import Tried, best_first
from unmask.kinds import FindingKind
from unmask.records import Finding

__all__ = ["EIGHT_BIT", "gridded", "on_grids"]

EIGHT_BIT = 255
"""Levels above 0 of images as files hold them."""

_WAYS = 4
"""Views that are tried on a grid, at most: the own gradient and the best."""

_LESS = 0.05
"""By how much less a search over a grid must leave than the best of the others."""


def on_grids(tried: Sequence[Tried], scale: int, attempt: Callable[[list[Way], int], list[Tried]]) -> list[Tried]:
    """What leaves clearly less on the grid of the data or of 8 bit than all of ``tried``, best first; else nothing.

    Args:
        tried: without a grid, best first.
        scale: levels above 0 of the data's own grid.
        attempt: (views, levels) -> the views tried with candidates on that grid.
    """
    if not tried or tried[0].left <= _LESS:
        return []
    views = [one.way for one in tried if not one.failure][:_WAYS]
    found = best_first([one for levels in dict.fromkeys((scale, EIGHT_BIT)) for one in attempt(views, levels)])
    return [one for one in found if one.left < tried[0].left - _LESS]


def gridded(tried: Sequence[Tried], worth: Sequence[Tried]) -> list[Finding]:
    """That the model answers otherwise on a grid than between its levels, where :func:`on_grids` found that."""
    return [
        Finding(
            kind=FindingKind.SHATTERED,
            module="",
            where=f"the model's answer: between the levels of the grid of k/{best.levels} it is another than on them",
            evidence={"left": round(tried[0].left, 3), "left on the grid": round(best.left, 3)},
            remedy=f"Snapped({best.levels}, attack)",
        )
        for best in worth[:1]
    ]
