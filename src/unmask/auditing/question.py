"""The plans that follow from a run's question, when it begins and when it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unmask.auditing.candidate_views import CandidateView
from unmask.auditing.grids import gridded, hidden_by_a_grid
from unmask.auditing.plan import prepare_audit
from unmask.auditing.probe_data import TRIED, standing
from unmask.cases import find_case
from unmask.data import Dataset
from unmask.diagnosis.instrumentation import preserve_buffers
from unmask.evaluation.attack_registry import attack_from_options
from unmask.evaluation.failures import in_one_line
from unmask.evaluation.plan import Plan, plan_attack, plan_case
from unmask.evaluation.runner import LocalExecutor
from unmask.evaluation.targets import Target
from unmask.inputs import check_eps
from unmask.kinds import Access, FindingKind
from unmask.threats import Threat, parse

__all__ = ["plans"]


def plans(asked: Mapping[str, Any], local: LocalExecutor) -> list[Plan]:
    """What a command plans that was asked ``asked``; after it ``local`` can do these jobs.

    An audit examines the model for it, which takes as long as it takes at the beginning of the audit; an attack tries
    whether the model answers otherwise on a grid of grey levels.

    Raises ValueError for a model, data or threat that do not fit, and KeyError or TypeError where ``asked`` is not the
    question of a command.

    >>> config = {"command": "reproduce", "cases": ["plain-digits"], "n": 4, "seed": 0, "curves": False}
    >>> (plan,) = plans(config, LocalExecutor())
    >>> [(job.attack, job.stop) for job in plan.jobs]
    [('clean', 4), ('plain', 4), ('apgd', 4)]
    """
    n, seed = asked["n"], asked["seed"]
    if asked["command"] == "reproduce":
        cases = [find_case(name) for name in asked["cases"]]
        return [plan_case(case, local.dataset(case.data, n), n, seed, curves=asked["curves"]) for case in cases]
    if asked["command"] not in ("attack", "audit"):
        raise ValueError(f"no command {asked['command']!r} makes runs")
    target, images, options, threat = asked["target"], asked["data"], asked["options"], _threat(**asked["threat"])
    if asked["command"] == "audit":
        return [prepare_audit(local, target, images, threat, n, seed, options["budget"], local.device)]
    data = local.dataset(images, n)
    with in_one_line(target):
        found, levels = _with_grid(local.target(target, data), data, threat, n, seed, options, local.device)
        return [plan_attack(target, found, data, threat, n, seed, options, levels)]


def _with_grid(
    target: Target, data: Dataset, threat: Threat, n: int, seed: int, options: Mapping[str, Any], device: str
) -> tuple[Target, int]:
    """The target, with a note where a search through the attack's view leaves clearly less on a grid; its levels, or 0.

    The model keeps nothing of it.
    """
    attacker = attack_from_options(options)
    way, by_scores = CandidateView(view=attacker.view), attacker.access != Access.WHITE_BOX
    with preserve_buffers(target.model):
        x, y, index = standing(target, data, min(n, len(data), TRIED), seed, device)
        if not len(x):
            return target, 0
        tried, worth = hidden_by_a_grid(target, threat, x, y, index, data.scale, seed, way, by_scores=by_scores)
    noted = replace(target, setup_findings=(*target.setup_findings, *gridded(tried, worth, FindingKind.GRID)))
    return noted, worth[0].levels if worth else 0


def _threat(norm: str, eps: float, unit: str) -> Threat:
    threat = parse(norm, eps, unit)
    check_eps(norm, eps, unit)
    return threat
