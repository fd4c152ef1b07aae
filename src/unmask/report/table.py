"""The rows of a report: every number in it is computed here, from the records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from unmask.kinds import MAIN_ROLES, Role
from unmask.records import TABLE_SCHEMA, Figure, Record, ThreatSpec
from unmask.report.run_folder import CaseInfo, ExampleRecord, RunFolder, by_attack, other_threats
from unmask.report.verdict.figures import Figures, figures
from unmask.report.verdict.gradient_use import no_plain_gradient
from unmask.report.verdict.masking import Masking, MaskingEvidence, masking
from unmask.report.verdict.warnings import warnings
from unmask.report.verdict.worst_case import accuracy_of, adaptive_accuracy, known_accuracy, named, worst
from unmask.statistics import ANYTIME, FIXED, Accuracy, PairedTest, accuracy

__all__ = ["AttackRow", "EpsPoint", "Row", "StrengthPoint", "table", "to_json"]


@dataclass(frozen=True)
class AttackRow:
    """What one attack leaves and what it costs."""

    name: str
    role: Role
    accuracy: Accuracy
    robust_one_draw: float  # share of examples that are robust in the first fresh draw
    robust_all_draws: float  # share that are robust in every fresh draw
    forwards: int
    backwards: int
    seconds: float
    draws: int
    description: str
    access: str = ""  # what the attacker has, where attacks of a case differ in it
    superclass_accuracy: Accuracy | None = None  # share that keeps its general category, where classes have one
    other_threats: tuple[ThreatSpec, ...] = ()  # of its jobs, where they are not the case's


@dataclass(frozen=True)
class EpsPoint:
    """Accuracies at one size of the ball."""

    eps: float
    plain: Accuracy | None
    adaptive: Accuracy | None


@dataclass(frozen=True)
class StrengthPoint:
    """Accuracies at one strength of the defense, on fewer examples and under one adaptive attack."""

    value: float
    clean: Accuracy | None
    plain: Accuracy | None
    adaptive: Accuracy | None


@dataclass(frozen=True)
class Row:
    """One case: accuracies are None where nothing is known yet."""

    case: str
    defense: str
    data: str
    threat: ThreatSpec
    clean: Accuracy | None
    plain: Accuracy | None
    adaptive: Accuracy | None
    attacks: tuple[AttackRow, ...]
    claimed: Figure | None
    published: Figure | None
    replicated: Figure | None
    seconds: float
    obfuscation: tuple[str, ...]
    note: str
    data_note: str
    controls: Mapping[str, Accuracy]
    control_threats: Mapping[str, tuple[ThreatSpec, ...]]  # of the controls' jobs, where they are not the case's
    eps_curve: tuple[EpsPoint, ...]
    varied: str  # of the defense, in the settings
    own: float | None  # the setting of the case itself
    strength_curve: tuple[StrengthPoint, ...]
    complete: bool  # the clean verdicts and those of every attack of run.json are all there
    masking: Masking  # the first part of the verdict; the second is the robust accuracy
    reason: str  # why the first part is inconclusive
    warnings: tuple[str, ...]  # reasons why the robust accuracy is unreliable, the gravest first
    reliable: bool  # whether there are none
    upper_bound: bool  # whether the robust accuracy is an upper bound and nothing more
    classified: bool  # whether the model is shown to classify the images
    paired_test: PairedTest | None  # from the plain attacks to the adaptive ones alone, on the examples of both
    control: bool
    random: bool
    citation: str
    superclass_accuracy: Mapping[
        str, Accuracy
    ]  # of "clean", "plain", "adaptive": share that keeps its general category
    intervals: str  # of which kind
    stop_when: str | None  # the rule by which the number of examples was chosen

    @property
    def robust(self) -> Accuracy | None:
        """The robust accuracy: the worst case over all attacks."""
        return self.adaptive or self.plain


def table(run: RunFolder) -> list[Row]:
    """One row a case, in the order of run.json."""
    return [_row(run, case) for case in run.cases]


def to_json(rows: Sequence[Row]) -> str:
    """The text of report.json."""
    return json.dumps({"schema": TABLE_SCHEMA, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"


def _row(run: RunFolder, case: CaseInfo) -> Row:
    known = figures(run, case)
    doubts = warnings(run, case, known.clean, known.robust, known.controls, complete=known.complete)
    plain_gradient = not no_plain_gradient(run, case)
    judged = masking(
        MaskingEvidence(
            known.complete,
            known.clean,
            known.plain,
            known.adaptive,
            known.paired_test,
            findings=case.findings,
            sound=case.diagnosed and not case.findings and plain_gradient,
            plain_gradient=plain_gradient,
            warnings=doubts,
        )
    )
    anytime = run.rule is not None
    return Row(
        case=case.case,
        defense=case.defense,
        data=case.data,
        threat=case.threat,
        clean=known.clean,
        plain=known.plain,
        adaptive=known.adaptive,
        attacks=tuple(_attacks(run, case, anytime)),
        claimed=case.claimed,
        published=case.published,
        replicated=case.replicated,
        seconds=sum(record.seconds for record in run.of(case)),
        obfuscation=case.obfuscation,
        note=case.note,
        data_note=case.data_note,
        controls=known.controls,
        control_threats=_control_threats(run, case),
        eps_curve=tuple(
            _curve(
                _sweep(run, case),
                EpsPoint(0.0, known.clean, known.clean),
                EpsPoint(case.threat.eps, known.plain, known.adaptive),
                anytime=anytime,
            )
        ),
        varied=str(case.strength_sweep["varied"]) if case.strength_sweep else "",
        own=float(case.strength_sweep["own"]) if case.strength_sweep else None,
        strength_curve=tuple(_settings(run.of(case, Role.STRENGTH), anytime=anytime)),
        complete=known.complete,
        masking=judged.masking,
        reason=judged.reason,
        warnings=doubts.texts,
        reliable=not doubts.texts,
        upper_bound=doubts.upper_bound,
        classified=not doubts.unclassified,
        paired_test=known.paired_test,
        control=case.control,
        random=case.random,
        citation=case.citation,
        superclass_accuracy=_generals(known, case),
        intervals=ANYTIME if anytime else FIXED,
        stop_when=str(run.rule) if run.rule else None,
    )


def _generals(known: Figures, case: CaseInfo) -> dict[str, Accuracy]:
    clean, plain, adaptive = (known.attacks[role] for role in MAIN_ROLES)
    kept = {
        name: _general(worst(attacks.values()), case)
        for name, attacks in (("clean", clean), ("plain", plain), ("adaptive", {**plain, **adaptive}))
    }
    return {name: a for name, a in kept.items() if a is not None}


def _attacks(run: RunFolder, case: CaseInfo, anytime: bool) -> Iterable[AttackRow]:
    for role in (Role.PLAIN, Role.ADAPTIVE):
        for name, found in by_attack(run.of(case, role)).items():
            records = [record for record in run.of(case, role) if record.job.attack == name]
            yield AttackRow(
                name=name,
                role=role,
                accuracy=known_accuracy(found, name, anytime=anytime),
                robust_one_draw=sum(f.example.robust_one_draw for f in found.values()) / len(found),
                robust_all_draws=sum(f.example.robust_all_draws for f in found.values()) / len(found),
                forwards=sum(record.forwards for record in records),
                backwards=sum(record.backwards for record in records),
                seconds=sum(record.seconds for record in records),
                draws=max(record.draws for record in records),
                description=case.attacks.get(name, ""),
                access=case.access.get(name, "") if len(set(case.access.values())) > 1 else "",
                superclass_accuracy=_general(found, case),
                other_threats=other_threats(case, records),
            )


def _control_threats(run: RunFolder, case: CaseInfo) -> dict[str, tuple[ThreatSpec, ...]]:
    found: dict[str, list[Record]] = {}
    for record in run.of(case, Role.CONTROL):
        found.setdefault(record.job.options.get("control", record.job.attack), []).append(record)
    return {name: threats for name, records in found.items() if (threats := other_threats(case, records))}


def _general(found: Mapping[int, ExampleRecord], case: CaseInfo) -> Accuracy | None:
    """Share whose first answer is a class of the same general category, or a refusal."""
    if case.groups is None or not found:
        return None
    of = case.groups
    examples = [found[index].example for index in sorted(found)]
    return accuracy([float(of[e.predicted] == of[e.label] or bool(e.refused)) for e in examples])


def _sweep(run: RunFolder, case: CaseInfo) -> list[tuple[str, Record]]:
    """The jobs in balls of other sizes, each with the role of its attack; of an audit the controls at twice eps."""
    curve = [(record.job.options["base"], record) for record in run.of(case, Role.EPS)]
    doubled = {"plain doubled eps": Role.PLAIN, "doubled eps": Role.ADAPTIVE}
    controls = [(record.job.options.get("control"), record) for record in run.of(case, Role.CONTROL)]
    return curve or [(doubled[name], record) for name, record in controls if name in doubled]


def _curve(sweep: Sequence[tuple[str, Record]], *known: EpsPoint, anytime: bool) -> list[EpsPoint]:
    """Accuracies of the sweep with those at 0 and at the case's own eps; nothing without a sweep."""
    if not sweep:
        return []
    points = {point.eps: point for point in known}
    for eps in {record.job.threat.eps for _, record in sweep} - points.keys():
        here = [(base, record) for base, record in sweep if record.job.threat.eps == eps]
        plain, adaptive = (
            by_attack(record for base, record in here if base == role) for role in (Role.PLAIN, Role.ADAPTIVE)
        )
        points[eps] = EpsPoint(
            eps,
            accuracy_of(worst(plain.values()), named(plain), anytime=anytime),
            adaptive_accuracy(plain, adaptive, anytime=anytime),
        )
    return [points[eps] for eps in sorted(points)]


def _settings(records: Sequence[Record], *, anytime: bool) -> Iterable[StrengthPoint]:
    for value in sorted({float(record.job.options["strength"]) for record in records}):
        here = [record for record in records if record.job.options["strength"] == value]
        found = {
            base: by_attack(record for record in here if record.job.options["base"] == base) for base in MAIN_ROLES
        }
        clean, plain, adaptive = (
            accuracy_of(worst(attacks.values()), named(attacks), anytime=anytime) for attacks in found.values()
        )
        yield StrengthPoint(value, clean, plain, adaptive)
