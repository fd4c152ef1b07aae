"""The choice of a view by what it is worth: how far a short search through it lowers the true model's margin."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.snapped import over_grid, snapped
from unmask.attacks.problem import Attack
from unmask.auditing.probe_data import Images
from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView
from unmask.auditing.views.pilot_result import PilotResult, distinct, rank
from unmask.diagnosis.behaviour.stochastic import noise, shared
from unmask.diagnosis.findings import draws
from unmask.errors import first_line
from unmask.evaluation.models.targets import Target
from unmask.gradients.autograd import autograd
from unmask.gradients.eot import EOT
from unmask.judging import Judge
from unmask.losses import margin
from unmask.models.model_wrappers import BATCH_MULTIPLE, batch_invariant, frozen_copy, query
from unmask.progress import track
from unmask.randomness import Keys, make_keys, use_keys
from unmask.state.digests import digest_of
from unmask.threats import Threat
from unmask.types import Estimator, Output

__all__ = ["PilotSearch", "estimator"]

_STEPS = 12

_DRAWS = 4
"""Of a random model, in each of the two verdicts on an image."""

_AVERAGED = 2
"""Of a random model, at most for a gradient: the steps of a search average over more."""

_ROUNDING = 0.1
"""Of the change of the answers that a search makes, as much as rounding to a grid may add."""

_FINALISTS = 3
"""Views that are tried on all images after a few, the best there; the model's own gradient besides."""


@dataclass(frozen=True)
class PilotSearch:
    """Short searches through views, all from the same images, each judged on the true model.

    With ``few``, many views are tried on that many of the images, and the best of them on the others too (successive
    halving; Jamieson & Talwalkar, AISTATS 2016).
    """

    target: Target
    threat: Threat
    images: Images
    seed: int
    attack: Attack | None = None
    """A search that takes no gradient; without it, a few steps on the margin are taken."""
    few: int = 0

    def __call__(self, views: Sequence[CandidateView], levels: int = 0) -> list[PilotResult]:
        """Each of ``views`` tried, in their order; one that cannot be tried says why.

        With ``levels`` the candidates of the searches lie on that grid:
        see :class:`unmask.attacks.combined.snapped.Snapped`.
        """
        some = self.images.split(self.few)
        if not self.few or len(some) < 2 or len(views) <= _FINALISTS:
            return self._each(self.images, views, levels)
        few, others = some
        found = self._each(few, views, levels)
        finalists = [*distinct(rank(found))[:_FINALISTS], *(one for one in found if one.view == OWN_GRADIENT)]
        whole = dict[int, PilotResult]()
        for one in track(distinct(finalists), "view on all images"):
            whole[id(one.x_adv)] = one.with_more(self._attempt(others, one.view, levels))
        return [
            replace(whole.get(id(one.x_adv), replace(one, complete=bool(one.error))), view=one.view) for one in found
        ]

    def _each(self, images: Images, views: Sequence[CandidateView], levels: int) -> list[PilotResult]:
        found = list[PilotResult]()
        known: dict[str, PilotResult] = {}
        reached: Tensor | None = None  # the images that the first search came to
        for view in track(views, "view"):
            gradient = "" if reached is None else self._gradient(images, view, reached)
            one = replace(known[gradient], view=view) if gradient in known else self._attempt(images, view, levels)
            if reached is None and self.attack is None and not levels and one.x_adv is not None:
                reached = one.x_adv
                gradient = self._gradient(images, view, reached)
            known |= {gradient: one} if gradient else {}
            found.append(one)
        return found

    def _attempt(self, images: Images, view: CandidateView, levels: int) -> PilotResult:
        try:
            return self._try(images, view, levels)
        except Exception as error:  # of the author's code, in a use that it was not written for
            why = f"{type(error).__name__}: {first_line(error, '')}"
            return PilotResult(view, 1.0, -torch.inf, 0.0, error=why, levels=levels)

    def _gradient(self, images: Images, candidate: CandidateView, reached: Tensor) -> str:
        """A digest of the margin's gradient at random points of the ball, and at images that a search has come to,
        since thresholds may lie where noise does not reach: a view with the same gradient finds the same. Nothing
        where no gradient can be taken.
        """
        keys = images.keys(self.seed, "same gradient")
        with use_keys(keys):
            start = self.threat.project(self.threat.start(images.x), images.x)
        slopes = dict[str, Tensor]()
        with suppress(Exception):  # of the author's code, in a use that it was not written for
            seen = self._seen(images, candidate)
            for name, at in (("start", start), ("reached", reached)):
                z = at.clone().requires_grad_()
                with use_keys(keys.fold_in("model"), uses_torch_random=True), torch.enable_grad():
                    loss = margin(query(seen, z), images.y)
                slope = torch.autograd.grad(loss.sum(), z, allow_unused=True)[0] if loss.requires_grad else None
                slopes[name] = torch.zeros_like(z) if slope is None else slope + 0.0  # -0 is 0
            return digest_of(slopes)
        return ""

    def _seen(self, images: Images, candidate: CandidateView) -> nn.Module:
        twin = frozen_copy(self.target.model, images.x)
        return twin if candidate.view is None else candidate.view(twin)

    @torch.no_grad()
    def differs(self, one: PilotResult, levels: int) -> bool:
        """Whether the model answers otherwise on the grid of k / ``levels`` than at the images that a search came to.

        So it does if a class or a refusal changes, or the logits by a tenth of what the search changed of them.
        """
        if one.x_adv is None:
            return False
        images = self.images.split(len(one.x_adv))[0]
        x, asked = images.x, list[Output]()
        for at in (x, one.x_adv, snapped(one.x_adv, x, self.threat, levels)):
            with use_keys(images.keys(self.seed, "grid"), uses_torch_random=True):
                asked.append(query(self.target.model, at))
        clean, found, rounded = (answer.logits.double() for answer in asked)
        refused = [answer.reject > 0 for answer in asked if answer.reject is not None]
        if not rounded.argmax(1).equal(found.argmax(1)) or not all(one.equal(refused[1]) for one in refused[2:]):
            return True
        return bool((rounded - found).norm() > _ROUNDING * (found - clean).norm())

    @torch.no_grad()
    def saved_by_refusal(self, one: PilotResult | None) -> float:
        """Share of the images that a search has moved to another class, and that the model refuses."""
        if one is None or one.x_adv is None:
            return 0.0
        images = self.images.split(len(one.x_adv))[0]
        with use_keys(images.keys(self.seed, "refused"), uses_torch_random=True):
            answer = query(self.target.model, one.x_adv)
        refused = torch.zeros_like(images.y, dtype=torch.bool) if answer.reject is None else answer.reject > 0
        return float((refused & (answer.logits.argmax(1) != images.y)).double().mean())

    @cached_property
    def _apart(self) -> bool:
        """Whether each draw needs a pass of its own."""
        keys = make_keys(self.seed, range(BATCH_MULTIPLE), "shared")
        return self._averages() and shared(self.target.model, self.images.x, keys)

    def _refusal_gradient(self, images: Images, candidate: CandidateView, x_adv: Tensor, keys: Keys) -> bool:
        z = x_adv[:1].clone().requires_grad_()
        with use_keys(keys, uses_torch_random=True), torch.enable_grad():
            reject = query(self._seen(images, candidate), z).reject
        return reject is not None and reject.requires_grad

    def _use_otherwise(self, images: Images, candidate: CandidateView, x_adv: Tensor, keys: Keys) -> None:
        """Query a view on fewer of the images, as attacks do: an error that is raised then is one of the pilot."""
        if candidate.view is None or len(x_adv) < 2:
            return
        few = torch.arange(len(x_adv) // 2 + 1)
        view = batch_invariant(self._seen(images, candidate), uses_torch_random=self.target.uses_torch_random)
        with use_keys(keys.select(few)), torch.enable_grad():
            view(x_adv[few].clone().requires_grad_())

    @cached_property
    @torch.no_grad()
    def refuses(self) -> bool:
        """Whether the model's answer has a margin of refusal."""
        return query(self.target.model, self.images.x[:1]).reject is not None

    def _search(self, how: Estimator) -> Attack:
        """A few steps on the margin. Those of a model that refuses turn from class to refusal and back: steps with
        momentum that get shorter find the way between, and the judge may see each of them.
        """
        if self.refuses and self.target.draws == 1:
            return APGD(_STEPS, margin, how)
        return pgd(_STEPS, margin, how, rel_step_size=0.25, early_stop=False)

    def _averages(self) -> bool:
        return self.target.draws > 1 and self.attack is None

    def _try(self, images: Images, candidate: CandidateView, levels: int) -> PilotResult:
        model, x, y, keys = self.target.model, images.x, images.y, images.keys(self.seed, "try")
        signal = noise(self._seen(images, candidate), x, y, keys, draws=4).signal if self._averages() else 1.0
        how = estimator(signal, self._apart, max_draws=_AVERAGED) if self.target.draws > 1 else autograd
        search = self.attack or self._search(how)
        judge = Judge(model, self.threat, min(self.target.draws, _DRAWS), self.target.uses_torch_random)
        result = run_attack(
            over_grid(levels, search), model, x, y, judge=judge, view=candidate.view, index=images.index, seed=self.seed
        )
        with torch.no_grad(), use_keys(keys, uses_torch_random=judge.uses_torch_random):
            answer = query(model, result.x_adv)
            seen = query(model if candidate.view is None else candidate.view(model), result.x_adv)
        self._use_otherwise(images, candidate, result.x_adv, keys)
        lead = margin(Output(answer.logits.float()), y)
        if answer.reject is not None:  # a refusal has a scale of its own: refused, an image is at best at the boundary
            lead = torch.where(answer.reject > 0, lead.clamp_max(0), lead)
        value = float(lead.mean()) / float(answer.logits.float().std().clamp_min(1e-12))
        left = (result.verdict.robust_fraction + result.selection.robust_fraction) / 2  # neither has chosen anything
        misled = tuple((~_stands(seen, y) & (left > 0.5)).double().tolist())
        return PilotResult(
            candidate,
            robust_accuracy=float(left.mean()),
            margin=value,
            signal=signal,
            per_draw_passes=self._apart,
            fooled_view_only=misled,
            x_adv=result.x_adv,
            levels=levels,
            refusal_gradient=self.refuses and self._refusal_gradient(images, candidate, result.x_adv, keys),
        )


def _stands(answer: Output, y: Tensor) -> Tensor:
    right = answer.logits.argmax(1) == y
    return right if answer.reject is None else right | (answer.reject > 0)


def estimator(signal: float, apart: bool = False, max_draws: int = 32) -> Estimator:
    """Of as many draws as leave as much noise as signal; ``apart``, each in a pass of its own."""
    count = min(max_draws, draws(signal))
    if count == 1:
        return autograd
    return EOT(count, batch=1) if apart else EOT(count)
