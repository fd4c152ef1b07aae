"""The choice of a grid of grey levels for a model that answers otherwise between its levels than on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unmask.auditing.attacks.attackers import search_by_scores
from unmask.auditing.probe_data import PILOT_IMAGES, Images
from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView
from unmask.auditing.views.pilot_result import PilotResult, distinct, rank
from unmask.auditing.views.view_selection import PilotSearch
from unmask.evaluation.models.targets import Target
from unmask.kinds import FindingKind
from unmask.records import Finding
from unmask.threats import Threat

__all__ = ["EIGHT_BIT", "gridded", "hidden_by_a_grid", "on_grids"]

EIGHT_BIT = 255
"""Levels above 0 of images as files hold them."""

_VIEWS = 4
"""Views that are tried on a grid, at most: the own gradient and the best."""

_QUERIES = 50
"""Of a search by scores, on each grid."""

_LESS = 0.05
"""By how much less a search over a grid must leave than the best of the others."""

_IMAGES = 5
"""On how many more images it must succeed: fewer differ by chance (one-sided sign test at 5 %)."""


def on_grids(
    results: Sequence[PilotResult],
    scale: int,
    attempt: Callable[[list[CandidateView], int], list[PilotResult]],
    differs: Callable[[PilotResult, int], bool] = lambda one, levels: True,
) -> list[PilotResult]:
    """What leaves clearly less on the grid of the data or of 8 bit than all of ``results``, best first; else nothing.

    Args:
        results: of the pilot without a grid, best first.
        scale: levels above 0 of the data's own grid.
        attempt: (views, levels) -> the views tried with candidates on that grid.
        differs: whether the model answers otherwise on that grid than at the images that a search came to.
    """
    if not results or results[0].robust_accuracy <= _LESS:
        return []
    tried = [one for one in distinct(results) if one.complete][:_VIEWS]
    grids = [levels for levels in dict.fromkeys((scale, EIGHT_BIT)) if any(differs(one, levels) for one in tried)]
    found = rank([one for levels in grids for one in attempt([one.view for one in tried], levels)])
    return [one for one in found if _clearly_less(one, results[0])]


def _clearly_less(one: PilotResult, best: PilotResult) -> bool:
    less, count = best.robust_accuracy - one.robust_accuracy, 0 if one.x_adv is None else len(one.x_adv)
    return less > _LESS and less * count > _IMAGES - 0.5  # half an image for shares that are rounded


def hidden_by_a_grid(
    target: Target,
    threat: Threat,
    images: Images,
    scale: int,
    seed: int,
    candidate: CandidateView = OWN_GRADIENT,
    *,
    by_scores: bool = False,
) -> tuple[list[PilotResult], list[PilotResult]]:
    """A short search through one view, without a grid, and what :func:`on_grids` makes of it.

    Args:
        images: of which the first few are searched around.
        scale: as of :func:`on_grids`.
        by_scores: whether the search takes no gradient.
    """
    query = search_by_scores(_QUERIES, threat.norm) if by_scores else None
    search = PilotSearch(target, threat, images.first(PILOT_IMAGES), seed, query)
    results = search([candidate])
    return results, on_grids(results, scale, search)


def gridded(
    results: Sequence[PilotResult], worth: Sequence[PilotResult], kind: FindingKind = FindingKind.SHATTERED
) -> list[Finding]:
    """That the model answers otherwise on a grid than between its levels, where :func:`on_grids` found that."""
    return [
        Finding(
            kind=kind,
            module="",
            where=f"the model's output differs between images on the grid k/{best.levels} and images off it",
            evidence={
                "robust_accuracy": round(results[0].robust_accuracy, 3),
                "left on the grid": round(best.robust_accuracy, 3),
            },
            remedy=f"Snapped({best.levels}, attack)",
        )
        for best in worth[:1]
    ]
