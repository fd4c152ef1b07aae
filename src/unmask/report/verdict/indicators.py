"""Whether an attack works: the five behaviours of obfuscated gradients, the indicators of attack failure.

The behaviours are those of Athalye, Carlini & Wagner (ICML 2018), the indicators those of Pintor et al., *Indicators of
Attack Failure* (NeurIPS 2022). Each is asked of the plain attack, where it is evidence against the model's
gradients, and of the adaptive one, where it makes the robust accuracy unreliable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unmask.kinds import Role
from unmask.records import Example
from unmask.report.run_folder import CaseInfo, RunFolder, by_attack
from unmask.report.verdict.thresholds import LEVEL, MARGIN
from unmask.statistics import accuracy, paired_test

__all__ = ["BY_SCORES", "Indicator", "IndicatorEvidence", "indicators", "judge"]

BY_SCORES = ("black-box", "transfer")
"""Attacks of an audit that use no gradient of the model itself."""

Verdicts = Mapping[int, Example]
"""Example's number -> what became of it."""

_RARE = 0.05
"""Share of the examples that a failure may concern by chance."""

_DROWNED = 0.6
"""Share of an averaged gradient that may be noise."""

_SILENT = 0.1
"""Share of the examples that may be without a gradient."""


@dataclass(frozen=True)
class Indicator:
    """One test of one attack; ``value`` is the size of the effect, ``why`` describes it in words."""

    name: str
    of: str  # "plain" or "adaptive"
    failed: bool
    value: float
    why: str


@dataclass(frozen=True)
class IndicatorEvidence:
    """What is known of one attack; a test whose data are missing is left out."""

    attack: Verdicts
    one_step: Verdicts | None = None
    unbounded: Verdicts | None = None
    larger: Verdicts | None = None  # at twice the size
    noise: Verdicts | None = None
    doubled: Verdicts | None = None  # steps
    scores: Mapping[str, Verdicts] | None = None  # attacks by scores alone, and transferred ones, by name
    zero_gradient: float | None = None  # share of the examples whose gradient is zero
    noise_fraction: float | None = None  # share of the gradient that is noise
    fooled_view_only: Sequence[float] | None = None  # 1 for each example that its view lost and the model did not


def indicators(run: RunFolder, case: CaseInfo) -> list[Indicator]:
    """Of the plain and the adaptive attack of an audit, from its records."""
    assert case.audit is not None
    attacks = {name: _examples(found) for name, found in by_attack(run.of(case, Role.PLAIN, Role.ADAPTIVE)).items()}
    controls = {name: _examples(found) for name, found in by_attack(run.of(case, Role.CONTROL)).items()}
    few = {"black-box": controls["few queries"]} if "few queries" in controls else {}
    scores = {name: _asked(run, case, name, attacks) for name in BY_SCORES if name in attacks}
    found: list[Indicator] = []
    if case.audit.get("not_diagnosed_reason"):  # scores alone; the attack in question is that by scores
        attacks = {"adaptive": attacks["black-box"]} if "black-box" in attacks else {}
    for of, before in (("plain", "plain "), ("adaptive", "")):
        asked = _asked(run, case, of, attacks) if of in attacks else {}
        if asked:
            gradients: Mapping[str, Any] = case.audit.get("gradients", {}).get(of, {})
            evidence = IndicatorEvidence(
                attack=asked,
                one_step=controls.get(f"{before}one step"),
                unbounded=controls.get(f"{before}unbounded"),
                larger=controls.get(f"{before}doubled eps"),
                noise=controls.get("noise"),
                doubled=controls.get(f"{before}doubled steps"),
                scores={**scores, **few} if of == "plain" else scores,
                **gradients,
            )
            found += judge(of, evidence)
    return found


def _asked(run: RunFolder, case: CaseInfo, name: str, attacks: Mapping[str, Verdicts]) -> Verdicts:
    """The examples that this attack tried itself: without those that it keeps from attacks before it."""
    before = {attack for r in run.of(case, Role.ADAPTIVE) if r.job.attack == name for attack in r.job.after}
    kept = {i for other in before & attacks.keys() for i, e in attacks[other].items() if e.selection_robust == 0}
    return {index: example for index, example in attacks[name].items() if index not in kept}


def judge(of: str, known: IndicatorEvidence) -> list[Indicator]:
    """The results of all tests of the attack ``of`` for which ``known`` has the data."""
    answers = [*_behaviours(known), *_failures(known)]
    return [Indicator(name, of, failed, value, why) for name, failed, value, why in answers]


Answer = tuple[str, bool, float, str]


def _behaviours(known: IndicatorEvidence) -> Iterator[Answer]:
    if known.one_step is not None:
        value, beaten = _beats(known.one_step, known.attack)
        yield (
            "one step beats many",
            beaten,
            value,
            f"one step breaks {_points(value)} more of the examples than the whole search",
        )
    for name, verdicts in (known.scores or {}).items():
        value, beaten = _beats(verdicts, known.attack)
        yield (
            f"{name} beats gradients",
            beaten,
            value,
            f"{name} attacks break {_points(value)} more of the examples than gradients",
        )
    if known.unbounded is not None:
        left = accuracy([example.robust for example in known.unbounded.values()])
        why = f"the robust accuracy without a bound is {left.value:.0%}, but no model can be robust without one"
        yield "unconstrained failure", left.low > _RARE, left.value, why
    if known.noise is not None:
        both = sorted(known.noise.keys() & known.attack.keys())
        only = [float(known.attack[i].robust - known.noise[i].robust >= 0.5) for i in both]
        if both:
            found = accuracy(only)
            why = f"random points break {found.value:.0%} of the examples that the attack does not break"
            yield "noise beats gradients", found.low > 0.01, found.value, why
    if known.larger is not None:
        yield _growth(known, known.larger)


def _growth(known: IndicatorEvidence, larger: Verdicts) -> Answer:
    """A model may be robust in twice a tiny ball, so no growth counts only if an attack without a bound fails too."""
    fall, _ = _beats(larger, known.attack)
    rise, worse = _beats(known.attack, larger)
    left = _mean(known.attack, larger)
    stuck = known.unbounded is not None and accuracy([e.robust for e in known.unbounded.values()]).low > _RARE
    flat = left >= 0.1 and fall <= 0 and stuck
    why = f"the robust accuracy is {left - fall:.0%} in a ball of twice the size, and {left:.0%} in the ball itself"
    return "larger eps does not help", worse or flat, rise, why


def _failures(known: IndicatorEvidence) -> Iterator[Answer]:
    lost = accuracy([float(e.selection_robust == 0 and e.robust > 0.5) for e in known.attack.values()])
    why = f"{lost.value:.0%} of the examples were broken during the attack, but are robust when judged"
    yield "silent success", lost.low > 0.01, lost.value, why
    if known.zero_gradient is not None:
        why = f"{known.zero_gradient:.0%} of the images have no gradient at the start"
        yield "unavailable gradients", known.zero_gradient >= _SILENT, known.zero_gradient, why
    if known.noise_fraction is not None:
        why = f"{known.noise_fraction:.0%} of the gradient is noise, after averaging"
        yield "unstable predictions", known.noise_fraction > _DROWNED, known.noise_fraction, why
    if known.doubled is not None:
        value, beaten = _beats(known.doubled, known.attack)
        yield "incomplete optimisation", beaten, value, f"twice the steps break {_points(value)} more of the examples"
    if known.fooled_view_only:
        misled = accuracy(known.fooled_view_only)
        why = f"{misled.value:.0%} of the examples fool the view, but not the model"
        yield "transfer failure", misled.low > _RARE, misled.value, why


def _beats(one: Verdicts, other: Verdicts) -> tuple[float, bool]:
    """How much more ``one`` breaks of the examples of both, and whether that is more than noise."""
    both = sorted(one.keys() & other.keys())
    if not both:
        return 0.0, False
    found = paired_test([other[i].robust for i in both], [one[i].robust for i in both])
    return found.value, found.value >= MARGIN and found.p < LEVEL


def _points(difference: float) -> str:
    return f"{100 * difference:.0f} percentage points"


def _mean(of: Verdicts, on: Verdicts) -> float:
    both = of.keys() & on.keys()
    return sum(of[i].robust for i in both) / len(both) if both else 0.0


def _examples(found: Mapping[int, Any]) -> dict[int, Example]:
    return {index: verdict.example for index, verdict in sorted(found.items())}
