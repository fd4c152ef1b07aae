"""The third step of an audit: short searches through candidate views choose that which the attacks take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from unmask.auditing.diagnose import Diagnosis
from unmask.auditing.grids import gridded, on_grids
from unmask.auditing.pilot_findings import aged_model, gradients, misleading, remedy
from unmask.auditing.probe_data import PILOT_IMAGES
from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView
from unmask.auditing.views.candidate_views import agreements, candidate_views, expensive_views
from unmask.auditing.views.decoders import decoders
from unmask.auditing.views.fitted_views import fitted_refusals, fitted_views
from unmask.auditing.views.pilot_result import PilotResult, of_own_gradient, rank
from unmask.auditing.views.surrogates import surrogate_models
from unmask.auditing.views.view_selection import PilotSearch
from unmask.diagnosis.findings import draws
from unmask.diagnosis.probe import faults_behind_refusals
from unmask.errors import UnmaskError
from unmask.gradients.spaces import Latent
from unmask.models.model_wrappers import frozen_copy

__all__ = ["Pilot", "pilot_views"]

_DEAR = 0.05
"""By how much less a dear view must leave than the best of the others."""

_FEW = 8
"""Images on which the views of a large model are tried first."""

_LARGE = 1 << 18
"""Numbers that a pass of a model makes of an image from which on the model is large."""

_HUGE = 1 << 22
"""The same, from which on views are tried on half as many images in all."""

_FAR = 0.1
"""By how much less than the own gradient views around thresholds of refusal must leave to come before others."""

_SAVED = 0.05
"""Share of the images that a search moves to another class and the model refuses: its refusal counts from there on."""

_TIE = 0.02
"""Views are about as good if what is left, and the loss that they reach, differ by less."""


@dataclass(frozen=True)
class Pilot:
    """What the short searches came to."""

    diagnosis: Diagnosis  # with what was seen through the best view
    results: tuple[PilotResult, ...]  # best first
    surrogates: tuple[CandidateView, ...]  # other models, whose examples may transfer
    decoders: tuple[Latent, ...]  # spaces of codes that parts of the model make images of
    gradients: dict[str, dict[str, Any]]  # what of them the plain and the adaptive attack have, as plain data

    def plain(self) -> dict[str, Any]:
        """As run.json holds it, the diagnosis included."""
        return {
            **self.diagnosis.plain(),
            "candidate_views": [one.plain() for one in self.results],
            "draws": draws(self.results[0].signal),
            "per_draw_passes": self.results[0].per_draw_passes,
            "gradients": self.gradients,
        }


@dataclass(frozen=True)
class _Trials:
    """The views that were tried so far, in the order in which they were thought of, and the results, best first."""

    diagnosis: Diagnosis
    views: list[CandidateView]
    results: list[PilotResult]


def pilot_views(diagnosis: Diagnosis) -> Pilot:
    """Try the views that the diagnosis suggests, and look once more at the gradients through the best of them.

    The model is left as it was loaded. Raises UnmaskError where no view can be searched through.
    """
    check, request = diagnosis.check, diagnosis.check.request
    few = _FEW if diagnosis.numbers >= _LARGE else 0
    count = PILOT_IMAGES if diagnosis.numbers < _HUGE else PILOT_IMAGES // 2
    search = PilotSearch(request.target, request.threat, check.images.first(count), request.seed, few=few)
    trials = _tried(diagnosis, search)
    behind = _behind_refusals(trials, search)
    if behind is not None and _less(others := _tried(behind, search), _FAR):
        trials = others
    trials = _with_fitted_views(trials, search)
    trials = _with_expensive_views(trials, search)
    if behind is not None and (
        _less(trials, _TIE) or search.saved_by_refusal(of_own_gradient(trials.results)) > _SAVED
    ):
        trials = replace(trials, diagnosis=behind)
    found, view = trials.diagnosis, _least_invasive(trials).view
    if view is not None:
        found = found.through(view(frozen_copy(check.model, check.images.x)))
    worth = on_grids(trials.results, request.data.scale, search, search.differs)
    results = (*worth, *trials.results)
    best = _best(results)
    found = found.with_findings(misleading(found, best, trials.results))
    found = found.with_remedy(remedy(best, trials.results)).with_findings(gridded(trials.results, worth))
    keys = check.images.keys(request.seed, "sources")
    surrogates = surrogate_models(check.model, found.probe, check.images.x, check.radius, keys, request.limits.copy)
    spaces = decoders(check.model, found.probe, check.images.x)
    found = found.with_lint(aged_model(check))
    return Pilot(found, results, (*surrogates,), (*spaces,), gradients(found, results, best))


def _tried(diagnosis: Diagnosis, search: PilotSearch) -> _Trials:
    check = diagnosis.check
    views = candidate_views(check.model, diagnosis.probe, check.images.x, diagnosis.classes)
    return _Trials(diagnosis, views, rank(search(views)))


def _behind_refusals(trials: _Trials, search: PilotSearch) -> Diagnosis | None:
    """The diagnosis with the faults at thresholds of refusal that noise does not reach, if there are such alone."""
    own = of_own_gradient(trials.results)
    if own is None or own.robust_accuracy <= _FAR or trials.diagnosis.probe.faults or not search.refuses:
        return None
    assert own.x_adv is not None
    check, few = trials.diagnosis.check, trials.diagnosis.images
    keys = few.keys(check.request.seed, "switched")
    hidden = faults_behind_refusals(check.model, own.x_adv[: len(few)], check.radius, keys)
    return trials.diagnosis.suspecting(hidden) if hidden else None


def _less(trials: _Trials, by: float) -> bool:
    """Whether a view leaves less than the own gradient by more than that: faults at thresholds of refusal matter."""
    own = of_own_gradient(trials.results)
    return own is not None and trials.results[0].robust_accuracy < own.robust_accuracy - by


def _with_fitted_views(trials: _Trials, search: PilotSearch) -> _Trials:
    """Where all others leave something, views through fitted surrogates too."""
    if trials.results[0].robust_accuracy <= _DEAR:
        return trials
    found, check = trials.diagnosis, trials.diagnosis.check
    views = fitted_views(check.model, found.probe, check.images.x, found.classes)
    if search.refuses:
        views += agreements(found.probe, found.classes)
        views += fitted_refusals(check.model, found.probe, check.images.x, check.radius)
    return replace(trials, views=[*trials.views, *views], results=rank([*trials.results, *search(views)]))


def _with_expensive_views(trials: _Trials, search: PilotSearch) -> _Trials:
    """Where all cheap views leave something, expensive ones too; those that leave clearly less come before the best."""
    if trials.results[0].robust_accuracy <= _DEAR:
        return trials
    check = trials.diagnosis.check
    further = rank(search(expensive_views(check.model, trials.diagnosis.probe, check.images.x, check.radius)))
    most = trials.results[0].robust_accuracy - _DEAR
    less = [one for one in further if one.complete and one.robust_accuracy < most]
    first = less or trials.results[:1]
    results = [*first, *rank([one for one in (*trials.results, *further) if one not in first])]
    return replace(trials, views=[*trials.views, *(one.view for one in further)], results=results)


def _least_invasive(trials: _Trials) -> CandidateView:
    """The view that changes least of those about as good as the best: what it lets through can be looked at.

    What is made of the logits is looked at too, so that none that ends before the model does is meant.
    """
    whole = [one for one in trials.results if one.view.end_to_end and one.complete]
    near = [
        one.view
        for one in whole
        if one.robust_accuracy <= whole[0].robust_accuracy + _TIE and one.margin >= whole[0].margin - _TIE
    ]
    return min(near, key=trials.views.index, default=OWN_GRADIENT)


def _best(results: Sequence[PilotResult]) -> PilotResult:
    for one in results:
        if not one.error:
            return one
    raise UnmaskError(f"the model cannot be searched, not even by its own gradient: {results[0].error}")
