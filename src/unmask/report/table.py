"""The rows of a report: every number in it is computed here, from the records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from unmask.records import TABLE_SCHEMA, Figure, Record, ThreatSpec
from unmask.report.conclusion import Conclusion, conclusion, confirmed
from unmask.report.read import Case, Found, RunFolder, by_attack
from unmask.statistics import ANYTIME, FIXED, Accuracy, Gap, accuracy, gap

__all__ = ["AttackRow", "Point", "Row", "Setting", "left", "remaining", "strongest", "table", "to_json", "worst"]


@dataclass(frozen=True)
class AttackRow:
    """What one attack leaves and what it costs."""

    name: str
    role: str
    accuracy: Accuracy
    one_shot: float  # share of examples that stand in the first fresh draw
    always: float  # share that stand in every fresh draw
    forwards: int
    backwards: int
    seconds: float
    draws: int
    about: str
    access: str = ""  # what the attacker has, where attacks of a case differ in it
    general: Accuracy | None = None  # share that keeps its general category, where classes have one


@dataclass(frozen=True)
class Point:
    """Accuracies at one size of the ball."""

    eps: float
    plain: Accuracy | None
    adaptive: Accuracy | None


@dataclass(frozen=True)
class Setting:
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
    earlier: Figure | None
    seconds: float
    kind: str
    note: str
    data_note: str
    controls: Mapping[str, Accuracy]
    curve: tuple[Point, ...]
    varied: str  # of the defense, in the settings
    own: float | None  # the setting of the case itself
    settings: tuple[Setting, ...]
    complete: bool  # the clean verdicts and those of every attack of run.json are all there
    conclusion: Conclusion
    gap: Gap | None  # from the plain attacks to the adaptive ones alone, on the examples of both
    control: bool
    random: bool
    citation: str
    general: Mapping[str, Accuracy]  # of "clean", "plain", "adaptive": share that keeps its general category
    intervals: str  # of which kind
    stop_when: str | None  # the rule by which the number of examples was chosen
    misleads: bool | None  # whether the model's gradients do, where an audit has looked at them


def table(run: RunFolder) -> list[Row]:
    """One row a case, in the order of run.json."""
    return [_row(run, case) for case in run.cases]


def to_json(rows: Sequence[Row]) -> str:
    """The text of report.json."""
    return json.dumps({"schema": TABLE_SCHEMA, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"


def worst(attacks: Iterable[Mapping[int, Found]]) -> dict[int, Found]:
    """For each example the verdict under the attack that did best on the draws that attacks select by.

    Of equals the attack counts that did best on all examples, on the same draws: to look at the fresh
    ones would be to select by them.
    """
    chosen: dict[int, Found] = {}
    for verdicts in strongest(attacks):
        for index, found in verdicts.items():
            if index not in chosen or found.example.screened < chosen[index].example.screened:
                chosen[index] = found
    return dict(sorted(chosen.items()))


def strongest(attacks: Iterable[Mapping[int, Found]]) -> list[Mapping[int, Found]]:
    """Attacks by what they leave on the draws that attacks select by, the one that leaves least first."""
    return sorted(attacks, key=_screened)


def remaining(plain: Mapping[str, dict[int, Found]], adaptive: Mapping[str, dict[int, Found]]) -> dict[int, Found]:
    """The worst case over all attacks, on the examples that an adaptive attack has tried, if there is any."""
    chosen = worst([*adaptive.values(), *plain.values()])
    tried = set().union(*adaptive.values()) if adaptive else chosen.keys()
    return {index: found for index, found in chosen.items() if index in tried}


def left(records: Sequence[Record]) -> Accuracy | None:
    """What the attacks of one case leave, by an interval that holds whenever it is asked for."""
    plain, adaptive = (by_attack(r for r in records if r.job.role == role) for role in ("plain", "adaptive"))
    return _accuracy(remaining(plain, adaptive), anytime=True)


def _row(run: RunFolder, case: Case) -> Row:
    rule = run.rule
    anytime = rule is not None
    clean = by_attack(run.of(case, "clean"))
    plain, adaptive = by_attack(run.of(case, "plain")), by_attack(run.of(case, "adaptive"))
    clean_accuracy = _accuracy(worst(clean.values()), anytime=anytime)
    plain_accuracy = _accuracy(worst(plain.values()), _named(plain), anytime=anytime)
    adaptive_accuracy = _adaptive(plain, adaptive, anytime)
    paired = _gap(worst(plain.values()), worst(adaptive.values()), anytime)
    done = [worst(clean.values()), *({**plain, **adaptive}.get(name, {}) for name in case.attacks)]
    enough = max(case.n or len(done[0]), 1)
    if rule and (so_far := adaptive_accuracy or plain_accuracy) and rule.met(so_far):
        enough = len(done[0])
    complete = min(map(len, done)) >= enough
    misleads = None
    if case.audit is not None and not case.audit.get("unexamined"):
        misleads = bool(confirmed(case.audit["findings"], clean_accuracy, paired))
    result = Conclusion.UNFINISHED
    if complete and clean_accuracy:
        sound = misleads is False
        result = conclusion(clean_accuracy, plain_accuracy, adaptive_accuracy, paired, sound=sound)
    return Row(
        case=case.case,
        defense=case.defense,
        data=case.data,
        threat=case.threat,
        clean=clean_accuracy,
        plain=plain_accuracy,
        adaptive=adaptive_accuracy,
        attacks=tuple(_attacks(run, case, anytime)),
        claimed=case.claimed,
        published=case.published,
        earlier=case.earlier,
        seconds=sum(record.seconds for record in run.of(case)),
        kind=case.kind,
        note=case.note,
        data_note=case.data_note,
        controls={name: _sure(found, name, anytime) for name, found in by_attack(run.of(case, "control")).items()},
        curve=tuple(
            _curve(
                run.of(case, "sweep"),
                Point(0.0, clean_accuracy, clean_accuracy),
                Point(case.threat.eps, plain_accuracy, adaptive_accuracy),
                anytime=anytime,
            )
        ),
        varied=str(case.dial["varied"]) if case.dial else "",
        own=float(case.dial["own"]) if case.dial else None,
        settings=tuple(_settings(run.of(case, "dial"), anytime=anytime)),
        complete=complete,
        conclusion=result,
        gap=paired,
        control=case.control,
        random=case.random,
        citation=case.citation,
        general={
            name: kept
            for name, attacks in (("clean", clean), ("plain", plain), ("adaptive", {**plain, **adaptive}))
            if (kept := _general(worst(attacks.values()), case)) is not None
        },
        intervals=ANYTIME if anytime else FIXED,
        stop_when=str(rule) if rule else None,
        misleads=misleads,
    )


def _attacks(run: RunFolder, case: Case, anytime: bool) -> Iterable[AttackRow]:
    for role in ("plain", "adaptive"):
        for name, found in by_attack(run.of(case, role)).items():
            records = [record for record in run.of(case, role) if record.job.attack == name]
            yield AttackRow(
                name=name,
                role=role,
                accuracy=_sure(found, name, anytime),
                one_shot=sum(f.example.one_shot for f in found.values()) / len(found),
                always=sum(f.example.always for f in found.values()) / len(found),
                forwards=sum(record.forwards for record in records),
                backwards=sum(record.backwards for record in records),
                seconds=sum(record.seconds for record in records),
                draws=max(record.draws for record in records),
                about=case.attacks.get(name, ""),
                access=case.access.get(name, "") if len(set(case.access.values())) > 1 else "",
                general=_general(found, case),
            )


def _general(found: Mapping[int, Found], case: Case) -> Accuracy | None:
    """Share whose first answer is a class of the same general category, or a refusal."""
    if case.groups is None or not found:
        return None
    of = case.groups
    examples = [found[index].example for index in sorted(found)]
    return accuracy([float(of[e.predicted] == of[e.label] or bool(e.refused)) for e in examples])


def _curve(sweep: Sequence[Record], *known: Point, anytime: bool) -> list[Point]:
    """Accuracies of the sweep with those at 0 and at the case's own eps; nothing without a sweep."""
    if not sweep:
        return []
    points = {point.eps: point for point in known}
    for eps in {record.job.threat.eps for record in sweep} - points.keys():
        here = [record for record in sweep if record.job.threat.eps == eps]
        plain, adaptive = (
            by_attack(record for record in here if record.job.options["base"] == base) for base in ("plain", "adaptive")
        )
        points[eps] = Point(
            eps,
            _accuracy(worst(plain.values()), _named(plain), anytime=anytime),
            _adaptive(plain, adaptive, anytime),
        )
    return [points[eps] for eps in sorted(points)]


def _settings(records: Sequence[Record], *, anytime: bool) -> Iterable[Setting]:
    for value in sorted({float(record.job.options["dial"]) for record in records}):
        here = [record for record in records if record.job.options["dial"] == value]
        found = {
            base: by_attack(record for record in here if record.job.options["base"] == base)
            for base in ("clean", "plain", "adaptive")
        }
        clean, plain, adaptive = (
            _accuracy(worst(attacks.values()), _named(attacks), anytime=anytime) for attacks in found.values()
        )
        yield Setting(value, clean, plain, adaptive)


def _adaptive(
    plain: Mapping[str, dict[int, Found]], adaptive: Mapping[str, dict[int, Found]], anytime: bool
) -> Accuracy | None:
    """Worst case over all attacks; None where no adaptive one has been tried."""
    found = remaining(plain, adaptive) if adaptive else {}
    return _accuracy(found, _named({**adaptive, **plain}), anytime=anytime)


def _gap(plain: Mapping[int, Found], adaptive: Mapping[int, Found], anytime: bool) -> Gap | None:
    both = sorted(plain.keys() & adaptive.keys())
    if not both:
        return None
    before, after = ([found[i].example.robust for i in both] for found in (plain, adaptive))
    return gap(before, after, anytime=anytime)


def _named(attacks: Mapping[str, object]) -> str:
    return ("worst of " if len(attacks) > 1 else "") + ", ".join(attacks)


def _screened(verdicts: Mapping[int, Found]) -> float:
    return sum(found.example.screened for found in verdicts.values()) / len(verdicts)


def _sure(found: Mapping[int, Found], attack: str | None, anytime: bool) -> Accuracy:
    return accuracy([found[index].example.robust for index in sorted(found)], attack, anytime=anytime)


def _accuracy(found: Mapping[int, Found], attack: str | None = None, *, anytime: bool) -> Accuracy | None:
    return _sure(found, attack, anytime) if found else None
