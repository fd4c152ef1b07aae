"""A run's folder as data: its configuration, and the results so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from unmask.errors import UnmaskError
from unmask.kinds import Obfuscation, Role
from unmask.records import Example, Figure, Finding, Record, ThreatSpec, built
from unmask.run_files import read_records, read_run
from unmask.statistics import StopRule

__all__ = ["CaseInfo", "ExampleRecord", "RunFolder", "by_attack", "name_of_target", "other_threats"]


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
        records = tuple({record.job.key: record for record in read_records(path)}.values())
        try:
            cases = tuple(_case(raw) for raw in run.cases)
        except UnmaskError as error:
            raise UnmaskError(f"{path}/run.json is damaged ({error})", "start the run again in a new folder") from error
        found = cls(path, run.description, cases, records)
        try:
            _hold({"planning_seconds": {}, **run.description}, "the run", **_RUN_TYPES)
            _hold(found.planning_seconds, "the planning", **dict.fromkeys(found.planning_seconds, (int, float)))
            for case in found.cases:
                _hold_records(case, found.of(case))
        except UnmaskError as error:
            raise UnmaskError(f"{path} cannot be shown ({error})", "start the run again in a new folder") from error
        return found

    @property
    def rule(self) -> StopRule | None:
        """The stop rule of the run; its intervals then have to hold at any stop."""
        asked = self.config.get("config")
        text = asked.get("stop_when") if isinstance(asked, dict) else None
        return None if text is None else StopRule.parse(str(text))

    @property
    def planning_seconds(self) -> Mapping[str, float]:
        """That each step of an audit took before its attacks."""
        return dict(self.config.get("planning_seconds", {}))

    def of(self, case: CaseInfo, *roles: Role) -> list[Record]:
        """Records of a case in these roles, or in any; in an order that no executor changes."""
        order = {name: place for place, name in enumerate(case.attacks)}
        chosen = [
            r
            for r in self.records
            if name_of_target(r.job.target) == name_of_target(case.case) and (not roles or r.job.role in roles)
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


def name_of_target(target: str) -> str:
    """As reports call it: a case without its prefix."""
    return target.removeprefix("case:")


def _case(raw: Mapping[str, Any]) -> CaseInfo:
    known = {name: raw[name] for name in CaseInfo.__dataclass_fields__ if name in raw}
    _hold(raw, "a case", threat=dict, classes=list, obfuscation=list, attacks=dict)
    _hold(
        {"access": {}, "setup": [], "groups": None, **raw}, "a case", access=dict, setup=list, groups=(list, NoneType)
    )
    names = [*raw["classes"], *raw["obfuscation"], *raw["attacks"].values(), *raw.get("access", {}).values()]
    if not all(isinstance(name, str) for name in names):
        raise UnmaskError("a name is no text")
    if raw.get("groups") is not None and not all(isinstance(group, int) for group in raw["groups"]):
        raise UnmaskError("a category is no number")
    known |= {"classes": tuple(raw["classes"]), "obfuscation": tuple(raw["obfuscation"])}
    known |= {name: built(Figure, raw[name]) for name in ("claimed", "published", "replicated") if raw.get(name)}
    case = built(CaseInfo, known, threat=built(ThreatSpec, raw["threat"]))
    if case.strength_sweep is not None:
        _hold(case.strength_sweep, "what is varied", varied=str, own=(int, float))
    for finding in case.setup:
        built(Finding, finding)
    if case.audit is not None:
        _hold_audit(case.audit)
        if case.threat.norm not in ("linf", "l2", "l1"):
            raise UnmaskError(f"no norm {case.threat.norm!r:.40}")
    return case


def _hold_audit(audit: Mapping[str, Any]) -> None:
    _hold(audit, "an audit", findings=list, lint=list, candidate_views=list, parts=list)
    optional = {"draws": 1, "gradients": {}, "not_diagnosed_reason": "", **audit}
    _hold(optional, "an audit", draws=int, gradients=dict, not_diagnosed_reason=str)
    for finding in (*audit["findings"], *audit["lint"]):
        built(Finding, finding)
    number = (int, float, NoneType)
    for one in audit["candidate_views"]:
        shown = {"images": 0, **one}
        _hold(shown, "a view", view=str, code=list, error=str, margin=number, robust_accuracy=number, images=int)
    if audit["candidate_views"] and all(one["error"] for one in audit["candidate_views"]):
        raise UnmaskError("no view was tried")
    for one in audit["parts"]:
        _hold(one, "a part", part=str, type=str, calls=int, fidelity=list)
        if not all(isinstance(share, int | float) for share in one["fidelity"]):
            raise UnmaskError("a share is no number")
    for known in optional["gradients"].values():
        _hold(known, "the gradients")
        shares = (*(share for name, share in known.items() if name != _FOOLED), *known.get(_FOOLED, ()))
        if known.keys() - {"zero_gradient", "noise_fraction", _FOOLED} or not all(map(_is_share, shares)):
            raise UnmaskError("the gradients hold something else than shares")


def _hold_records(case: CaseInfo, records: Iterable[Record]) -> None:
    for record in records:
        options, role = record.job.options, record.job.role
        _hold({"control": "", **options}, "a job", control=str)
        if role in (Role.EPS, Role.STRENGTH):
            _hold(options, "a job", base=str)
        if role == Role.STRENGTH:
            _hold(options, "a job", strength=(int, float))
        for one in record.examples:
            known = case.groups is None or max(one.label, one.predicted) < len(case.groups)
            if min(one.label, one.predicted) < 0 or not known:
                raise UnmaskError(f"example {one.index} has no class")


def _hold(raw: Any, what: str, **kinds: type | tuple[type, ...]) -> None:
    """Refuse plain data that lack a value of these types."""
    if not isinstance(raw, dict):
        raise UnmaskError(f"{what} is {raw!r:.40}")
    for name, kind in kinds.items():
        if not isinstance(raw.get(name, ...), kind):
            raise UnmaskError(
                f"{what} has {raw[name]!r:.40} for {name!r}" if name in raw else f"{what} has no {name!r}"
            )


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


_RUN_TYPES: dict[str, Any] = {"command": str, "suite": (str, NoneType), "seed": int, "started": str}
_RUN_TYPES |= {"revision": (str, NoneType), "versions": dict, "hardware": dict, "planning_seconds": dict}
_FOOLED = "fooled_view_only"
