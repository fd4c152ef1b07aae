"""The plans that follow from a run's question, when it begins and when it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unmask.auditing.grids import gridded, hidden_by_a_grid
from unmask.auditing.plan import plan_audit
from unmask.auditing.probe_data import PILOT_IMAGES, standing
from unmask.auditing.request import AuditRequest
from unmask.auditing.views.candidate_view import CandidateView
from unmask.cases import find_case
from unmask.data import Dataset
from unmask.diagnosis.instrumentation import preserve_buffers
from unmask.errors import UnmaskError
from unmask.evaluation.attack_registry import attack_from_options
from unmask.evaluation.failures import in_one_line
from unmask.evaluation.models.targets import Target
from unmask.evaluation.plan import Plan, plan_attack, plan_case
from unmask.evaluation.runner import LocalExecutor
from unmask.inputs import check_eps
from unmask.kinds import Access, FindingKind
from unmask.records import Finding
from unmask.threats import Threat, parse

__all__ = ["plans"]


def plans(config: Mapping[str, Any], local: LocalExecutor) -> list[Plan]:
    """The plans of a run's configuration; after it ``local`` can execute their jobs.

    An audit examines the model for it, which takes as long as it takes at the beginning of the audit; an attack tries
    whether the model answers otherwise on a grid of grey levels.

    Raises UnmaskError for a model, data or threat that do not fit.

    >>> config = {"command": "reproduce", "cases": ["plain-digits"], "n": 4, "seed": 0, "curves": False}
    >>> (plan,) = plans(config, LocalExecutor())
    >>> [(job.attack, job.stop) for job in plan.jobs]
    [('clean', 4), ('plain', 4), ('apgd', 4)]
    """
    n, seed = config["n"], config["seed"]
    if config["command"] == "reproduce":
        cases = [find_case(name) for name in config["cases"]]
        return [plan_case(case, local.dataset(case.data, n), n, seed, curves=config["curves"]) for case in cases]
    if config["command"] not in ("attack", "audit"):
        raise UnmaskError(f"no command {config['command']!r} makes runs")
    threat = _threat(**config["threat"])
    return [_audit(config, threat, local) if config["command"] == "audit" else _attack(config, threat, local)]


def _audit(config: Mapping[str, Any], threat: Threat, local: LocalExecutor) -> Plan:
    name, n, budget = config["target"], config["n"], config["options"]["budget"]
    data = local.dataset(config["data"], n)
    target = local.target(name, data)
    with in_one_line(name):
        request = AuditRequest(name, target, data, threat, n, config["seed"], budget, local.config.device)
        plan, armed = plan_audit(request)
    local.use(name, armed, data)
    return plan


def _attack(config: Mapping[str, Any], threat: Threat, local: LocalExecutor) -> Plan:
    """The attack of the configuration; a second time over a grid if the pilot through its view finds one."""
    name, options, n, seed = config["target"], config["options"], config["n"], config["seed"]
    data = local.dataset(config["data"], n)
    with in_one_line(name):
        target = local.target(name, data)
        notes, levels = _grid(target, data, threat, config, local.config.device)
        noted = replace(target, setup_findings=(*target.setup_findings, *notes))
        return plan_attack(name, noted, data, threat, n, seed, options, levels)


def _grid(
    target: Target, data: Dataset, threat: Threat, config: Mapping[str, Any], device: str
) -> tuple[list[Finding], int]:
    """A note where a search through the attack's view leaves clearly less on a grid; that grid's levels, or 0.

    The model keeps nothing of it.
    """
    attacker, n, seed = attack_from_options(config["options"]), config["n"], config["seed"]
    candidate, by_scores = CandidateView(view=attacker.view), attacker.access != Access.WHITE_BOX
    with preserve_buffers(target.model):
        images = standing(target, data, min(n, len(data), PILOT_IMAGES), seed, device)
        if not len(images):
            return [], 0
        results, worth = hidden_by_a_grid(target, threat, images, data.scale, seed, candidate, by_scores=by_scores)
    return gridded(results, worth, FindingKind.GRID), worth[0].levels if worth else 0


def _threat(norm: str, eps: float, unit: str = "raw") -> Threat:
    threat = parse(norm, eps, unit)
    check_eps(norm, eps, unit)
    return threat
