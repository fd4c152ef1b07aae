"""An audit as jobs: the model is examined, ways around what misleads gradients are tried, and the attacks follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from unmask.auditing.attackers import BUDGETS, attackers
from unmask.auditing.candidates import PLAIN, ways
from unmask.auditing.choose import Tried, try_out
from unmask.data import Dataset
from unmask.diagnosis.examine import Evidence, examine, through
from unmask.diagnosis.findings import draws, findings
from unmask.evaluation.plan import Plan, blocks, on, spec
from unmask.evaluation.run import Local
from unmask.evaluation.targets import Target
from unmask.judging import Judge
from unmask.randomness import drawing, stream
from unmask.records import Finding, Job, ThreatSpec
from unmask.threats import Threat
from unmask.types import as_output
from unmask.victims import lean, steady

__all__ = ["arm", "plan_audit"]

_PROBED = 16
"""Images on which a model is taken apart."""

_TRIED = 32
"""Images on which views are tried."""

_LOOKED = 256
"""Images among which those are looked for."""


def plan_audit(
    name: str, target: Target, data: Dataset, threat: Threat, n: int, seed: int, budget: str, device: str = "cpu"
) -> tuple[Plan, Target]:
    """Examine the model behind ``target`` on the first ``n`` test examples, and choose the attacks on it.

    The target that comes back has these attacks. Everything is keyed by ``seed``, so that the same call plans the
    same jobs. Raises ValueError for a budget that there is not, and for a model that gets no image right.
    """
    if budget not in BUDGETS:
        raise ValueError(f"no budget {budget!r}; budgets: {', '.join(BUDGETS)}")
    n = min(n, len(data))
    x, y, index = _right(target, data, n, seed, device)
    evidence = examine(
        target.model, x[:_PROBED], y[:_PROBED], _radius(threat, x), stream(seed, index[:_PROBED], "examine")
    )
    classes = evidence.parts[-1].event.made[0].value.shape[1]
    candidates = ways(target.model, evidence, x, classes)
    judge = Judge(target.model, threat, target.draws, target.foreign)
    random = target.draws > 1
    tried = try_out(target.model, judge, candidates, x[:_TRIED], y[:_TRIED], index[:_TRIED], seed, random)
    whole = next((one.way for one in tried if not one.way.reads), PLAIN)  # what is made of the logits is looked at too
    found = findings(evidence)
    if (view := whole.view) is not None:
        keys = stream(seed, index[:_PROBED], "through")
        evidence = through(evidence, view(lean(target.model)), x[:_PROBED], y[:_PROBED], keys)
        found += [finding for finding in findings(evidence) if finding not in found]
    chosen = attackers(tried, classes, BUDGETS[budget], random=random)
    about = {
        "case": name,
        "defense": "a model, examined and attacked by what was found",
        "kind": "audited",
        "claimed": None,
        "published": None,
        "citation": "",
        "random": random,
        "note": "",
        "attacks": {attack: attacker.about for attack, attacker in chosen.items()},
        "audit": _told(evidence, found, tried, budget),
        **on(data, n, spec(threat)),
    }
    return Plan(tuple(_jobs(name, data, spec(threat), n, seed, budget, list(chosen))), about), replace(
        target, attackers=chosen
    )


def arm(
    local: Local, name: str, images: str, threat: Threat, n: int, seed: int, budget: str, device: str = "cpu"
) -> Plan:
    """Plan an audit, and let the jobs that ``local`` does on ``name`` find the attacks that it came to."""
    data = local.dataset(images, n)
    plan, armed = plan_audit(name, local.target(name, data), data, threat, n, seed, budget, device)
    local.use(name, armed, data)
    return plan


def _right(
    target: Target, data: Dataset, n: int, seed: int, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first images of the test set that the model gets right, their classes, their positions."""
    index = torch.arange(min(n, _LOOKED))
    x, y = (part.to(device) for part in data.floats(index))
    with torch.no_grad(), drawing(stream(seed, index, "right")):
        answers = [
            as_output(steady(target.model, foreign=target.foreign)(part)).logits.argmax(1) for part in x.split(64)
        ]
    right = (torch.cat(answers) == y).nonzero().squeeze(1)[: 2 * _TRIED]
    if not len(right):
        raise ValueError(f"the model gets none of the first {len(x)} images right: check that the data set is its own")
    return x[right], y[right], index[right.cpu()]


def _radius(threat: Threat, x: torch.Tensor) -> float:
    """Of the ball, as the root mean square of an element."""
    radius = float(threat.radius(x).mean())
    return radius if threat.norm == "linf" else radius / x[0].numel() ** (0.5 if threat.norm == "l2" else 1.0)


def _jobs(
    name: str, data: Dataset, threat: ThreatSpec, n: int, seed: int, budget: str, attacks: Sequence[str]
) -> list[Job]:
    def jobs(attack: str, role: str, at: ThreatSpec, count: int, **options: object) -> list[Job]:
        options = {"budget": budget, **options}
        return [Job(name, data.name, attack, at, seed, start, stop, role, options) for start, stop in blocks(count)]

    few = min(n, 32)
    return [
        *jobs("clean", "clean", threat, n),
        *(job for attack in attacks for job in jobs(attack, "plain" if attack == "plain" else "adaptive", threat, n)),
        *jobs("noise", "control", threat, few),
        *jobs("plain", "control", replace(threat, eps=0.0), few, control="eps 0"),
        *jobs("adaptive", "control", ThreatSpec(threat.norm, 1.0, "rms"), few, control="unbounded"),
    ]


def _told(evidence: Evidence, found: Sequence[Finding], tried: Sequence[Tried], budget: str) -> Mapping[str, Any]:
    """What a report has to know of the examination, as plain data."""
    return {
        "budget": budget,
        "findings": [asdict(finding) for finding in found],
        "tried": [
            {
                "view": one.way.name,
                "code": one.way.code,
                "left": one.left,
                "loss": None if one.failure else one.loss,
                "failure": one.failure,
            }
            for one in tried
        ],
        "signal": evidence.noise.signal,
        "draws": draws(tried[0].signal),
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
