"""What is to be done: a case's jobs, in the order that is worth watching."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from unmask.cases import AttackSpec, Case
from unmask.data import DataError, Dataset, categories
from unmask.evaluation.attack_registry import attack_from_options
from unmask.evaluation.models.setup import setup_findings
from unmask.evaluation.models.targets import Target
from unmask.kinds import MAIN_ROLES, Access, Role
from unmask.records import Job, ThreatSpec
from unmask.threats import Threat

__all__ = ["SHARD", "Plan", "dataset_info", "plan_attack", "plan_case", "shards", "target_info", "threat_spec"]

SHARD = 128
"""Examples of a job: what an interruption can lose, and what a worker does at a time."""

SWEEP = (0.25, 0.5, 0.75, 1.5)
"""Sizes, as shares of the threat's, at which the curves of a report are measured."""


@dataclass(frozen=True)
class Plan:
    """The jobs on one target, and what a report has to know of it, as plain data."""

    jobs: tuple[Job, ...]
    case_info: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict)  # that each step of the planning took


def plan_case(case: Case, data: Dataset, n: int, seed: int, *, curves: bool = True) -> Plan:
    """A case on the first ``n`` test examples (fewer where there are fewer, or it is too slow for more).

    First the clean accuracy, then the plain and the adaptive attacks, then the controls (random noise
    in the ball; the plain attack at eps 0; the last adaptive attack without a bound), the curves, and what
    the case varies of its defense, all on fewer examples. The adaptive attack of these has the whole model.
    """
    n = min(n, len(data), case.max_examples or n)
    ball = threat_spec(case.threat)

    def jobs(attack: str, role: Role, threat: ThreatSpec, count: int, **options: object) -> Iterator[Job]:
        for start, stop in shards(count):
            yield Job(f"case:{case.name}", case.data, attack, threat, seed, start, stop, role, options)

    planned = [*jobs("clean", Role.CLEAN, ball, n)]
    for name, attacker in case.attacks.items():
        planned += jobs(name, _role(attacker), ball, n)
    if curves:
        few = min(n, case.n_controls)
        plain = next(name for name, attacker in case.attacks.items() if attacker.plain)
        adaptive = [name for name, attacker in case.attacks.items() if attacker.access == Access.WHITE_BOX][-1]
        planned += jobs("noise", Role.CONTROL, ball, few)
        planned += jobs(plain, Role.CONTROL, ThreatSpec(ball.norm, 0.0, ball.unit), few, control="eps 0")
        planned += jobs(adaptive, Role.CONTROL, ThreatSpec(ball.norm, 1.0, "rms"), few, control="unbounded")
        for share in SWEEP:
            threat = ThreatSpec(ball.norm, ball.eps * share, ball.unit)
            planned += jobs(plain, Role.EPS, threat, few, base=Role.PLAIN)
            planned += jobs(adaptive, Role.EPS, threat, few, base=Role.ADAPTIVE)
        if case.strength_sweep:
            for value in case.strength_sweep.values:
                for base, name in zip(MAIN_ROLES, ("clean", plain, case.strength_sweep.attack), strict=True):
                    planned += jobs(name, Role.STRENGTH, ball, few, base=base, strength=value)
    figures = {"claimed": case.claimed, "published": case.published, "replicated": case.replicated}
    sweep = case.strength_sweep
    about = {
        "case": case.name,
        "defense": case.defense,
        "obfuscation": list(case.obfuscation),
        **{name: figure and asdict(figure) for name, figure in figures.items()},
        "citation": case.citation,
        "random": case.draws > 1,
        "measured": case.image_probe.measured if case.image_probe else "",
        "strength_sweep": {"varied": sweep.varied, "own": sweep.own} if sweep else None,
        "note": "; ".join(filter(None, (case.note, case.provenance and f"weights: {case.provenance}"))),
        **_attack_info(case.attacks),
        **dataset_info(data, n, ball),
    }
    return Plan(tuple(planned), about)


def plan_attack(
    name: str,
    target: Target,
    data: Dataset,
    threat: Threat,
    n: int,
    seed: int,
    options: Mapping[str, Any],
    levels: int = 0,
) -> Plan:
    """The attack that ``options`` describe, on a target of any kind, on the first ``n`` test examples.

    With ``levels`` the same attack follows once more, over that grid.

    Raises UnmaskError where :func:`attack_from_options` does, and for a part that the model does not have.
    """
    attacker = attack_from_options(options)
    if attacker.view is not None:
        attacker.view(target.model)
    n, ball, searches = min(n, len(data)), threat_spec(threat), {options["attack"]: (attacker, options)}
    if levels:
        gridded = {**options, "levels": levels}
        searches[f"{options['attack']}, on the grid of k/{levels}"] = attack_from_options(gridded), gridded
    jobs = [Job(name, data.name, "clean", ball, seed, start, stop, Role.CLEAN) for start, stop in shards(n)]
    for attack, (one, settings) in searches.items():
        jobs += [Job(name, data.name, attack, ball, seed, *block, _role(one), settings) for block in shards(n)]
    notes = (*target.setup_findings, *setup_findings(target, attacker, data, threat, seed))
    about = {
        **target_info(name, name, {attack: one for attack, (one, _) in searches.items()}, random=target.draws > 1),
        "setup": [asdict(finding) for finding in notes],
        **dataset_info(data, n, ball),
    }
    return Plan(tuple(jobs), about)


def target_info(name: str, defense: str, attackers: Mapping[str, AttackSpec], *, random: bool) -> dict[str, Any]:
    """What a report has to know of a target that is no case."""
    return {
        "case": name,
        "defense": defense,
        "obfuscation": [],
        "claimed": None,
        "published": None,
        "citation": "",
        "random": random,
        "note": "",
        **_attack_info(attackers),
    }


def _attack_info(attackers: Mapping[str, AttackSpec]) -> dict[str, Any]:
    return {
        "attacks": {name: attacker.description for name, attacker in attackers.items()},
        "access": {name: attacker.access for name, attacker in attackers.items()},
    }


def shards(n: int) -> Iterator[tuple[int, int]]:
    """The ranges into which the first ``n`` examples are cut.

    >>> list(shards(200))
    [(0, 128), (128, 200)]
    """
    for start in range(0, n, SHARD):
        yield start, min(start + SHARD, n)


def dataset_info(data: Dataset, n: int, ball: ThreatSpec) -> dict[str, Any]:
    """What a report has to know of the examples and of the ball."""
    try:
        groups = categories(data.name).of.tolist()
    except DataError:
        groups = []
    return {
        "data": data.name,
        "data_note": data.note,
        "classes": data.classes,
        "groups": groups
        if groups and len(groups) == len(data.classes)
        else None,  # own data may have the name of others
        "n": n,
        "threat": asdict(ball),
    }


def _role(attacker: AttackSpec) -> Role:
    return Role.PLAIN if attacker.plain else Role.ADAPTIVE


def threat_spec(threat: Threat) -> ThreatSpec:
    """A threat as plain data."""
    return ThreatSpec(threat.norm, threat.eps, threat.unit)
