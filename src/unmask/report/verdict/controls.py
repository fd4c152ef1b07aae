"""The controls of a case against what they should leave if the attacks work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from unmask.kinds import MAIN_ROLES, Role
from unmask.records import ThreatSpec
from unmask.report.formatting import short_percent
from unmask.report.run_folder import CaseInfo, ExampleRecord, RunFolder, by_attack, other_threats
from unmask.report.verdict.thresholds import MARGIN
from unmask.report.verdict.worst_case import known_accuracy, worst, worst_case
from unmask.statistics import Accuracy

__all__ = ["Control", "controls"]

_RARE = 0.05
"""Share that an attack without a bound may leave by chance, as the indicator "unconstrained failure" has it."""

Verdicts = Mapping[int, ExampleRecord]


@dataclass(frozen=True)
class Control:
    """One control; ``expected`` says what it should leave, and is empty where nothing is known to compare with."""

    name: str
    accuracy: Accuracy
    other_threats: tuple[ThreatSpec, ...]  # of its jobs, where they are not the case's
    expected: str = ""
    passed: bool | None = None


def controls(run: RunFolder, case: CaseInfo) -> tuple[Control, ...]:
    """The controls of a case, each compared with another attack on the same examples."""
    clean, plain, adaptive = (by_attack(run.of(case, role)) for role in MAIN_ROLES)
    references = {
        "clean": worst(clean.values()),
        "plain": worst(plain.values()),
        "adaptive": worst_case(plain, adaptive),
    }
    records = run.of(case, Role.CONTROL)
    found = []
    for name, verdicts in by_attack(records).items():
        left = known_accuracy(verdicts, name, anytime=run.rule is not None)
        mine = [record for record in records if record.job.options.get("control", record.job.attack) == name]
        expected, passed = next(_expected(name, left, verdicts, references), ("", None))
        found.append(Control(name, left, other_threats(case, mine), expected, passed))
    return tuple(found)


def _expected(
    name: str, left: Accuracy, verdicts: Verdicts, references: Mapping[str, Verdicts]
) -> Iterator[tuple[str, bool | None]]:
    """What a control should leave, and whether it does; MARGIN is allowed between two attacks."""
    of, what = ("plain", name.removeprefix("plain ")) if name.startswith("plain ") else ("adaptive", name)
    if what == "unbounded":
        yield "0 %: no model is robust without a bound", left.low <= _RARE
    if (value := _on(verdicts, references["clean"], refused=True)) is not None and what == "eps 0":
        yield f"{short_percent(value)}: the clean accuracy of these examples", abs(left.value - value) <= 2 * MARGIN
    if (value := _on(verdicts, references[of])) is None:
        return
    attack = f"the {of} attack" if of == "plain" else "the adaptive attacks"
    if what in ("noise", "one step"):
        yield f"at least {short_percent(value)}, as {attack} of these examples", left.value >= value - MARGIN
    if what == "doubled steps":
        yield f"about {short_percent(value)}, as {attack} of these examples", left.value >= value - MARGIN
    if what == "doubled eps":
        yield f"at most {short_percent(value)}, as {attack} of these examples at eps", left.value <= value + MARGIN


def _on(examples: Iterable[int], verdicts: Verdicts, refused: bool = False) -> float | None:
    """The accuracy on the examples that are known of these; with ``refused``, a refusal counts as robust."""
    both = [verdicts[index].example for index in examples if index in verdicts]
    return sum(max(e.robust, float(refused and e.refused)) for e in both) / len(both) if both else None
