"""An audit as jobs: the model is examined, ways around what misleads gradients are tried, and the attacks follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from unmask.auditing.attackers import NOISE, attackers, controls
from unmask.auditing.black_box import by_scores
from unmask.auditing.budgets import budget_of
from unmask.auditing.candidate_views import OWN_GRADIENT, CandidateView, candidate_views, expensive_views
from unmask.auditing.decoders import decoders
from unmask.auditing.grids import gridded, on_grids
from unmask.auditing.jobs import Control, build_plan
from unmask.auditing.probe_data import TRIED, correctly_classified, lint_model, probe_size
from unmask.auditing.surrogates import surrogate_models
from unmask.auditing.view_selection import PilotResult, pilot_search, rank
from unmask.black_box_models import BlackBoxModel
from unmask.data import Dataset
from unmask.diagnosis.findings import averaged, draws, findings
from unmask.diagnosis.memory import aged
from unmask.diagnosis.probe import GradientProbe, faults_behind_refusals, probe_gradients, probe_through_view
from unmask.diagnosis.saturation import saturation
from unmask.evaluation.failures import in_one_line
from unmask.evaluation.plan import Plan, threat_spec
from unmask.evaluation.runner import LocalExecutor
from unmask.evaluation.setup import rms_radius
from unmask.evaluation.targets import Target
from unmask.judging import Judge
from unmask.model_wrappers import frozen_copy, query
from unmask.randomness import Keys, make_keys
from unmask.records import Finding, ThreatSpec
from unmask.state import State
from unmask.threats import Threat

__all__ = ["plan_audit", "prepare_audit"]

_PROBED = 16
"""Images on which a model is taken apart, at most."""

_DEAR = 0.05
"""By how much less a dear view must leave than the best of the others."""

_FAR = 0.1
"""By how much less than the own gradient a view must leave around thresholds of refusal that noise does not reach."""

_TIE = 0.02
"""Views are about as good if what is left, and the loss that they reach, differ by less."""


def plan_audit(
    name: str, target: Target, data: Dataset, threat: Threat, n: int, seed: int, budget: str, device: str = "cpu"
) -> tuple[Plan, Target]:
    """Examine the model behind ``target`` on the first ``n`` test examples, and choose the attacks on it.

    The target that comes back has these attacks. Everything is keyed by ``seed``, so that the same call plans the
    same jobs. Raises ValueError for a budget that there is not, and for a model that gets no image right.
    """
    limits, n, loaded = budget_of(budget), min(n, len(data)), State(target.model)
    if isinstance(target.model, BlackBoxModel):
        return by_scores(name, target, data, threat, n, seed, budget, device)
    x, y, index = correctly_classified(target, data, n, seed, device)
    probed, some = slice(probe_size(_PROBED, x)), slice(probe_size(TRIED, x))
    keys = make_keys(seed, index[probed], "examine")
    evidence = probe_gradients(target.model, x[probed], y[probed], rms_radius(threat, x), keys, target.draws)
    classes = evidence.parts[-1].event.outputs[0].value.shape[1]
    candidates = candidate_views(target.model, evidence, x, classes)
    judge = Judge(target.model, threat, target.draws, target.uses_torch_random)
    random = target.draws > 1

    def attempted(views: list[CandidateView], levels: int = 0) -> list[PilotResult]:
        return pilot_search(target.model, judge, views, x[some], y[some], index[some], seed, random, levels)

    tried = rank(attempted(candidates))
    own = next(one for one in tried if one.view == OWN_GRADIENT)
    if own.robust_accuracy > _FAR and own.x_adv is not None and not evidence.faults and _refuses(target.model, x):
        keys = make_keys(seed, index[probed], "switched")
        if hidden := faults_behind_refusals(target.model, own.x_adv[probed], rms_radius(threat, x), keys):
            suspected = replace(evidence, faults=hidden)
            others = candidate_views(target.model, suspected, x, classes)
            further = rank(attempted(others))
            if further[0].robust_accuracy < own.robust_accuracy - _FAR:
                evidence, tried, candidates = suspected, further, others
    if tried[0].robust_accuracy > _DEAR:
        further = rank(attempted(expensive_views(evidence)))
        less = [one for one in further if one.robust_accuracy < tried[0].robust_accuracy - _DEAR]
        tried = [*less, *tried, *further[len(less) :]]
        candidates += [one.view for one in further]
    found = findings(evidence)
    if (view := _least_invasive(tried, candidates).view) is not None:
        keys = make_keys(seed, index[probed], "through")
        evidence = probe_through_view(evidence, view(frozen_copy(target.model)), x[probed], y[probed], keys)
        known = {(one.kind, one.module, one.where) for one in found}
        fresh = [one for one in findings(evidence) if (one.kind, one.module, one.where) not in known]
        found += [
            one for one in fresh if not (found and "saturated_logits" in one.evidence)
        ]  # as votes are by themselves
    worth = on_grids(tried, data.scale, attempted)
    found += gridded(tried, worth)
    tried = [*worth, *tried]
    best = next((one for one in tried if not one.error), None)
    if best is None:
        raise ValueError(f"the model cannot be searched, not even by its own gradient: {tried[0].error}")
    keys = make_keys(seed, index, "sources")
    models = surrogate_models(target.model, evidence, x, rms_radius(threat, x), keys, limits.copy)
    spaces = decoders(target.model, evidence, x)
    chosen = attackers(tried, models, spaces, classes, limits, norm=threat.norm, random=random)
    checks = controls(tried, classes, limits, norm=threat.norm, random=random)
    told = {
        **_told(evidence, found, tried, budget),
        "lint": lint_model(target, data, seed, device) + _aged(target, loaded, x, seed),
        "gradients": _gradients(
            target.model, tried, best, x[probed], y[probed], make_keys(seed, index[probed], "available")
        ),
    }
    ball = threat_spec(threat)
    doubled, unbounded = replace(ball, eps=2 * ball.eps), ThreatSpec(ball.norm, 1.0, "rms")
    checked = [
        Control("noise", ball),
        Control("plain", replace(ball, eps=0.0), "eps 0"),
        Control("plain one step", ball),
        Control("one step", ball),
        Control("doubled steps", ball),
        Control("plain", doubled, "plain doubled eps"),
        Control("best view", doubled, "doubled eps"),
        Control("plain", unbounded, "plain unbounded"),
        Control("best view", unbounded, "unbounded"),
    ]
    plan = build_plan(name, data, ball, n, seed, budget, chosen, checked, told, random=random)
    return plan, replace(target, attacks={**chosen, **checks})


def _aged(target: Target, loaded: State, x: torch.Tensor, seed: int) -> list[dict[str, Any]]:
    """Whether the examination has changed the model's answers, as plain data; the model is again as it was loaded."""
    some = x[:_PROBED]
    found = aged(target.model, loaded, some, make_keys(seed, range(len(some)), "aged"))
    return [] if found is None else [asdict(found)]


@torch.no_grad()
def _refuses(model: nn.Module, x: torch.Tensor) -> bool:
    return query(model, x[:1]).reject is not None


def _least_invasive(tried: list[PilotResult], candidates: list[CandidateView]) -> CandidateView:
    """The view that changes least of those about as good as the best: what it lets through can be looked at.

    What is made of the logits is looked at too, so that none that ends before the model does is meant.
    """
    whole = [one for one in tried if one.view.end_to_end]
    near = [
        one.view
        for one in whole
        if one.robust_accuracy <= whole[0].robust_accuracy + _TIE and one.margin >= whole[0].margin - _TIE
    ]
    return min(near, key=candidates.index, default=OWN_GRADIENT)


def prepare_audit(
    local: LocalExecutor, name: str, images: str, threat: Threat, n: int, seed: int, budget: str, device: str = "cpu"
) -> Plan:
    """Plan an audit, and let the jobs that ``local`` does on ``name`` find the attacks that it came to."""
    data = local.dataset(images, n)
    target = local.target(name, data)
    with in_one_line(name):
        plan, armed = plan_audit(name, target, data, threat, n, seed, budget, device)
    local.use(name, armed, data)
    return plan


def _gradients(
    model: nn.Module,
    tried: Sequence[PilotResult],
    best: PilotResult,
    x: torch.Tensor,
    y: torch.Tensor,
    keys: Keys,
) -> dict[str, dict[str, Any]]:
    """Of the plain and of the adaptive attack: how many images have no gradient, and how much of it is noise."""
    own = next((one for one in tried if one.view == OWN_GRADIENT and not one.levels), best)
    twin = frozen_copy(model)
    view = twin if best.view.view is None else best.view.view(twin)
    return {
        "plain": {"zero_gradient": saturation(twin, x, y, keys).flat, "noise_fraction": 1 - own.signal},
        "adaptive": {
            "zero_gradient": saturation(view, x, y, keys).zero_gradient,
            "noise_fraction": 1 - averaged(best.signal, draws(best.signal, NOISE)),
            "fooled_view_only": best.fooled_view_only,
        },
    }


def _told(
    evidence: GradientProbe, found: Sequence[Finding], tried: Sequence[PilotResult], budget: str
) -> Mapping[str, Any]:
    """What a report has to know of the examination, as plain data."""
    return {
        "budget": budget,
        "findings": [asdict(finding) for finding in found],
        "candidate_views": [
            {
                "view": one.name,
                "code": one.view.code,
                "levels": one.levels,
                "robust_accuracy": one.robust_accuracy,
                "margin": None if one.error else one.margin,
                "error": one.error,
            }
            for one in tried
        ],
        "signal": evidence.noise.signal,
        "draws": draws(tried[0].signal, NOISE),
        "per_draw_passes": tried[0].per_draw_passes,
        "parts": _map(evidence),
    }


def _map(evidence: GradientProbe) -> list[dict[str, Any]]:
    """Gradient health part by part: what gradients explain of changes, at an eighth of the radius and at all of it."""
    parts: dict[str, dict[str, Any]] = {}
    for one in evidence.parts:
        if one.event.module:
            values = list(one.fidelity.values())[-2:]
            part = parts.setdefault(one.event.part, {"part": one.event.part, "type": one.event.name, "calls": 0})
            part["calls"] += 1
            part["fidelity"] = [round(value, 3) for value in values]
    return sorted(parts.values(), key=lambda part: [(s.isdigit(), s.zfill(6)) for s in str(part["part"]).split(".")])
