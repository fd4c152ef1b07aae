"""An audit as jobs: the model is examined, ways around what misleads gradients are tried, and the attacks follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from unmask.auditing.attackers import NOISE, attackers, controls
from unmask.auditing.budgets import budget_of
from unmask.auditing.by_scores import by_scores
from unmask.auditing.candidates import PLAIN, Way, dearer, ways
from unmask.auditing.choose import Tried, best_first, try_out
from unmask.auditing.decoders import decoders
from unmask.auditing.grids import gridded, on_grids
from unmask.auditing.images import TRIED, few, linted, right
from unmask.auditing.jobs import Control, planned
from unmask.auditing.stripped import sources
from unmask.data import Dataset
from unmask.diagnosis.examine import Evidence, examine, switched, through
from unmask.diagnosis.findings import averaged, draws, findings
from unmask.diagnosis.memory import aged
from unmask.diagnosis.saturation import saturation
from unmask.evaluation.failures import in_one_line
from unmask.evaluation.plan import Plan, spec
from unmask.evaluation.run import Local
from unmask.evaluation.setup import rms_radius
from unmask.evaluation.targets import Target
from unmask.judging import Judge
from unmask.randomness import Stream, stream
from unmask.records import Finding, ThreatSpec
from unmask.scores import ScoresOnly
from unmask.state import State
from unmask.threats import Threat
from unmask.victims import lean, query

__all__ = ["arm", "plan_audit"]

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
    if isinstance(target.model, ScoresOnly):
        return by_scores(name, target, data, threat, n, seed, budget, device)
    x, y, index = right(target, data, n, seed, device)
    probed, some = slice(few(_PROBED, x)), slice(few(TRIED, x))
    keys = stream(seed, index[probed], "examine")
    evidence = examine(target.model, x[probed], y[probed], rms_radius(threat, x), keys, target.draws)
    classes = evidence.parts[-1].event.made[0].value.shape[1]
    candidates = ways(target.model, evidence, x, classes)
    judge = Judge(target.model, threat, target.draws, target.foreign)
    random = target.draws > 1

    def attempted(views: list[Way], levels: int = 0) -> list[Tried]:
        return try_out(target.model, judge, views, x[some], y[some], index[some], seed, random, levels)

    tried = best_first(attempted(candidates))
    own = next(one for one in tried if one.way == PLAIN)
    if own.left > _FAR and own.moved is not None and not evidence.faults and _refuses(target.model, x):
        keys = stream(seed, index[probed], "switched")
        if hidden := switched(target.model, own.moved[probed], rms_radius(threat, x), keys):
            suspected = replace(evidence, faults=hidden)
            others = ways(target.model, suspected, x, classes)
            further = best_first(attempted(others))
            if further[0].left < own.left - _FAR:
                evidence, tried, candidates = suspected, further, others
    if tried[0].left > _DEAR:
        further = best_first(attempted(dearer(evidence)))
        less = [one for one in further if one.left < tried[0].left - _DEAR]
        tried = [*less, *tried, *further[len(less) :]]
        candidates += [one.way for one in further]
    found = findings(evidence)
    if (view := _mildest(tried, candidates).view) is not None:
        keys = stream(seed, index[probed], "through")
        evidence = through(evidence, view(lean(target.model)), x[probed], y[probed], keys)
        known = {(one.kind, one.module, one.where) for one in found}
        fresh = [one for one in findings(evidence) if (one.kind, one.module, one.where) not in known]
        found += [one for one in fresh if not (found and "squashed" in one.evidence)]  # as votes are by themselves
    worth = on_grids(tried, data.scale, attempted)
    found += gridded(tried, worth)
    tried = [*worth, *tried]
    best = next((one for one in tried if not one.failure), None)
    if best is None:
        raise ValueError(f"the model cannot be searched, not even by its own gradient: {tried[0].failure}")
    keys = stream(seed, index, "sources")
    models = sources(target.model, evidence, x, rms_radius(threat, x), keys, limits.copy)
    spaces = decoders(target.model, evidence, x)
    chosen = attackers(tried, models, spaces, classes, limits, norm=threat.norm, random=random)
    checks = controls(tried, classes, limits, norm=threat.norm, random=random)
    told = {
        **_told(evidence, found, tried, budget),
        "lint": linted(target, data, seed, device) + _aged(target, loaded, x, seed),
        "gradients": _gradients(
            target.model, tried, best, x[probed], y[probed], stream(seed, index[probed], "available")
        ),
    }
    ball = spec(threat)
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
    plan = planned(name, data, ball, n, seed, budget, chosen, checked, told, random=random)
    return plan, replace(target, attackers={**chosen, **checks})


def _aged(target: Target, loaded: State, x: torch.Tensor, seed: int) -> list[dict[str, Any]]:
    """Whether the examination has changed the model's answers, as plain data; the model is again as it was loaded."""
    some = x[:_PROBED]
    found = aged(target.model, loaded, some, stream(seed, range(len(some)), "aged"))
    return [] if found is None else [asdict(found)]


@torch.no_grad()
def _refuses(model: nn.Module, x: torch.Tensor) -> bool:
    return query(model, x[:1]).reject is not None


def _mildest(tried: list[Tried], candidates: list[Way]) -> Way:
    """The view that changes least of those about as good as the best: what it lets through can be looked at.

    What is made of the logits is looked at too, so that none that ends before the model does is meant.
    """
    whole = [one for one in tried if one.way.end_to_end]
    near = [one.way for one in whole if one.left <= whole[0].left + _TIE and one.loss >= whole[0].loss - _TIE]
    return min(near, key=candidates.index, default=PLAIN)


def arm(
    local: Local, name: str, images: str, threat: Threat, n: int, seed: int, budget: str, device: str = "cpu"
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
    tried: Sequence[Tried],
    best: Tried,
    x: torch.Tensor,
    y: torch.Tensor,
    keys: Stream,
) -> dict[str, dict[str, Any]]:
    """Of the plain and of the adaptive attack: how many images have no gradient, and how much of it is noise."""
    own = next((one for one in tried if one.way == PLAIN and not one.levels), best)
    twin = lean(model)
    view = twin if best.way.view is None else best.way.view(twin)
    return {
        "plain": {"silent": saturation(twin, x, y, keys).flat, "drowned": 1 - own.signal},
        "adaptive": {
            "silent": saturation(view, x, y, keys).silent,
            "drowned": 1 - averaged(best.signal, draws(best.signal, NOISE)),
            "misled": best.misled,
        },
    }


def _told(evidence: Evidence, found: Sequence[Finding], tried: Sequence[Tried], budget: str) -> Mapping[str, Any]:
    """What a report has to know of the examination, as plain data."""
    return {
        "budget": budget,
        "findings": [asdict(finding) for finding in found],
        "tried": [
            {
                "view": one.name,
                "code": one.way.code,
                "levels": one.levels,
                "left": one.left,
                "loss": None if one.failure else one.loss,
                "failure": one.failure,
            }
            for one in tried
        ],
        "signal": evidence.noise.signal,
        "draws": draws(tried[0].signal, NOISE),
        "apart": tried[0].apart,
        "parts": _map(evidence),
    }


def _map(evidence: Evidence) -> list[dict[str, Any]]:
    """Gradient health part by part: what gradients explain of changes, at an eighth of the radius and at all of it."""
    parts: dict[str, dict[str, Any]] = {}
    for one in evidence.parts:
        if one.event.module:
            values = list(one.explained.values())[-2:]
            part = parts.setdefault(one.event.part, {"part": one.event.part, "type": one.event.name, "calls": 0})
            part["calls"] += 1
            part["explained"] = [round(value, 3) for value in values]
    return sorted(parts.values(), key=lambda part: [(s.isdigit(), s.zfill(6)) for s in str(part["part"]).split(".")])
