"""A run's folder as data: its configuration, and the results so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from unmask.errors import UnmaskError
from unmask.kinds import Obfuscation
from unmask.records import Example, Figure, Finding, Record, ThreatSpec, check_types
from unmask.run_files import read_records, read_run
from unmask.statistics import StopRule

__all__ = ["CaseInfo", "ExampleRecord", "RunFolder", "by_attack", "other_threats"]


@dataclass(frozen=True)
class CaseInfo:
    """One defense on one data set under one threat, as run.json describes it."""

    case: str
    defense: str
    data: str
    obfuscation: tuple[str, ...]  # how the defense masks its gradient; empty if unknown
    threat: ThreatSpec
    claimed: Figure | None  # by the authors of the defense
    published: Figure | None  # left by a published attack
    citation: str
    random: bool
    classes: tuple[str, ...]
    attacks: Mapping[str, str]  # name -> one line on what it does
    replicated: Figure | None = None  # what an earlier run of the published attack left
    access: Mapping[str, str] = field(default_factory=dict)  # name -> what the attacker has
    groups: Sequence[int] | None = None  # the general category of each class, where classes have one
    measured: str = ""  # what the examples were measured by, beside the verdicts
    strength_sweep: Mapping[str, Any] | None = (
        None  # what of the defense is varied: its name "varied", the case's "own" value
    )
    note: str = ""  # on the figures
    data_note: str = ""
    n: int | None = None  # number of examples; None is as many as have a clean verdict, which comes first
    audit: Mapping[str, Any] | None = None  # the diagnosis of an audit, if there is one
    setup: Sequence[Mapping[str, Any]] = ()  # findings when the model was loaded, where it was not audited

    @property
    def setup_findings(self) -> list[Mapping[str, Any]]:
        """What was found wrong with the model's setup, before any attack."""
        return [*self.setup, *(self.audit or {}).get("lint", [])]

    @property
    def control(self) -> bool:
        """Whether it is a control, whose gradient is not masked."""
        return Obfuscation.NONE in self.obfuscation

    @property
    def diagnosed(self) -> bool:
        """Whether an audit could diagnose the gradients."""
        return self.audit is not None and not self.audit.get("not_diagnosed_reason")

    @property
    def findings(self) -> list[Mapping[str, Any]]:
        """What an audit found of the gradients."""
        return list((self.audit or {}).get("findings", []))

    def name_of(self, number: int) -> str:
        """A class as people call it."""
        return self.classes[number] if number < len(self.classes) else str(number)


class ExampleRecord(NamedTuple):
    """The verdict on one example, with its record."""

    record: Record
    example: Example


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, read once."""

    path: Path
    config: Mapping[str, Any]  # run.json
    cases: tuple[CaseInfo, ...]
    records: tuple[Record, ...]

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """The run in ``path``; UnmaskError where there is none, or a line of its records is damaged.

        Of two records of a job the later counts.
        """
        run = read_run(path)
        try:
            cases = tuple(_case(raw) for raw in run.cases)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnmaskError(
                f"{path}/run.json is damaged ({error!r})", "start the run again in a new folder"
            ) from error
        return cls(
            path, run.description, cases, tuple({record.job.key: record for record in read_records(path)}.values())
        )

    @property
    def rule(self) -> StopRule | None:
        """The stop rule of the run; its intervals then have to hold at any stop."""
        asked = self.config.get("config")
        text = asked.get("stop_when") if isinstance(asked, dict) else None
        return None if text is None else StopRule.parse(str(text))

    def of(self, case: CaseInfo, *roles: str) -> list[Record]:
        """Records of a case in these roles, or in any; in an order that no executor changes."""
        order = {name: place for place, name in enumerate(case.attacks)}
        chosen = [
            r for r in self.records if _name(r.job.target) == _name(case.case) and (not roles or r.job.role in roles)
        ]
        return sorted(chosen, key=lambda r: (order.get(r.job.attack, len(order)), r.job.attack, r.job.start))


def by_attack(records: Iterable[Record]) -> dict[str, dict[int, ExampleRecord]]:
    """Name of the attack, or of the control that it serves as -> example's index -> verdict.

    The records are of one role and, but for controls, of one threat.
    """
    found: dict[str, dict[int, ExampleRecord]] = {}
    for record in records:
        verdicts = found.setdefault(record.job.options.get("control", record.job.attack), {})
        verdicts.update((example.index, ExampleRecord(record, example)) for example in record.examples)
    return found


def other_threats(case: CaseInfo, records: Iterable[Record]) -> tuple[ThreatSpec, ...]:
    """The threats of the records' jobs that are not the case's."""
    return tuple(dict.fromkeys(record.job.threat for record in records if record.job.threat != case.threat))


def _name(target: str) -> str:
    return target.removeprefix("case:")


def _case(raw: Mapping[str, Any]) -> CaseInfo:
    known = {name: raw[name] for name in CaseInfo.__dataclass_fields__ if name in raw}
    known |= {"threat": ThreatSpec(**raw["threat"]), "classes": tuple(raw["classes"])}
    known["obfuscation"] = tuple(raw["obfuscation"])
    for name in ("claimed", "published", "replicated"):
        known[name] = None if raw.get(name) is None else Figure(**raw[name])
    case = CaseInfo(**known)
    check_types(case)
    check_types(case.threat)
    if not all(isinstance(name, str) for name in (*case.classes, *case.obfuscation, *case.attacks.values())):
        raise TypeError("a name is no text")
    for finding in case.setup:
        check_types(Finding(**finding))
    return case
