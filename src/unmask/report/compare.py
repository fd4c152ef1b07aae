"""Two runs on the same images, example by example."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unmask.errors import UnmaskError
from unmask.kinds import MAIN_ROLES
from unmask.records import ThreatSpec
from unmask.report.differences import differences, listed
from unmask.report.run_folder import CaseInfo, ExampleRecord, RunFolder, by_attack, name_of_target
from unmask.report.table import table
from unmask.report.verdict.worst_case import worst, worst_case
from unmask.run_files import read_run
from unmask.statistics import Accuracy, Difference, accuracy, difference

__all__ = ["PairedComparison", "compare", "compare_runs", "compared", "count_identical", "differing", "unreliable"]


@dataclass(frozen=True)
class PairedComparison:
    """Two accuracies on the same examples, and their difference, first minus second."""

    what: str
    first: Accuracy
    second: Accuracy
    difference: Difference
    changed: int  # examples whose share of robust draws differs
    attack: str = ""  # where one attack was held against itself


def compare(
    first: Path | str, second: Path | str, cases: tuple[str | None, str | None] = (None, None)
) -> list[PairedComparison]:
    """Compare two defenses that were attacked on the same images: clean, plain and adaptive accuracy, as far as known.

    Args:
        first: folder of a run; may be that of ``second`` too.
        second: folder of a run.
        cases: name of a case in each, where a run has several.

    The test is McNemar's exact one, the interval that of :func:`unmask.statistics.difference`; where a run was
    stopped by a rule, both hold whenever it stopped.

    Raises UnmaskError where a folder holds no run, a case is not settled, or the two are not about the same
    images and threat.

    >>> compare("/nowhere", "/nowhere")
    Traceback (most recent call last):
    unmask.errors.UnmaskError: /nowhere holds no run: no run.json in it; give the folder that --out named
    """
    runs = RunFolder.read(Path(first)), RunFolder.read(Path(second))
    one, two = (_case(run, name) for run, name in zip(runs, cases, strict=True))
    _same_question(one, two)
    _same_images(runs[0], one, runs[1], two)
    found = [_figures(run, case) for run, case in zip(runs, (one, two), strict=True)]
    anytime = any(run.rule for run in runs)
    return [
        _pair(what, found[0][what], found[1][what], anytime) for what in found[0] if found[0][what] and found[1][what]
    ]


def compared(first: Path, second: Path, cases: tuple[str | None, str | None] = (None, None)) -> list[str]:
    """Which cases of which runs :func:`compare` compares, and which figures and examples it leaves out, a line each."""
    runs = RunFolder.read(first), RunFolder.read(second)
    chosen = [_case(run, name) for run, name in zip(runs, cases, strict=True)]
    found = [_figures(run, case) for run, case in zip(runs, chosen, strict=True)]
    titles = [f"{run.path}, {case.case}" for run, case in zip(runs, chosen, strict=True)]
    lines = [f"first: {titles[0]}; second: {titles[1]}"]
    for what in found[0]:
        one, two = (figures[what].keys() for figures in found)
        missing = [title for title, examples in zip(titles, (one, two), strict=True) if not examples]
        if len(missing) == 1:
            lines.append(f"left out: {what}, which is not in {missing[0]}")
        elif alone := len(one ^ two):
            lines.append(f"left out: {alone} examples of {what}, which only one of the two has")
    return lines


def unreliable(first: Path, second: Path, cases: tuple[str | None, str | None] = (None, None)) -> list[str]:
    """A line for each of the two cases of :func:`compare` whose robust accuracy is unreliable or not complete."""
    lines = []
    for path, name in dict.fromkeys(zip((first, second), cases, strict=True)):
        run = RunFolder.read(path)
        case = _case(run, name)
        row = next(row for row in table(run) if row.case == case.case)
        why = "" if row.complete else "the run is incomplete"
        if why := why or next(iter(row.warnings), ""):
            lines.append(f"{path}, {row.case}, is unreliable: {why}")
    return lines


def compare_runs(first: Path, second: Path) -> list[PairedComparison]:
    """Hold a run against another one of the same cases, attack by attack, on the examples that both have.

    Raises UnmaskError where a folder holds no run, or they have no attack in common.
    """
    runs = RunFolder.read(first), RunFolder.read(second)
    one, two = (_attacks(run) for run in runs)
    both = [what for what in one if what in two]
    if not both:
        raise UnmaskError(f"{first} and {second} have no attack on the same case in common", "compare them by name")
    anytime = any(run.rule for run in runs)
    return [replace(_pair(_title(what), one[what], two[what], anytime), attack=what[2]) for what in both]


def count_identical(first: Path, second: Path) -> tuple[int, int]:
    """How many jobs of either run have the same record in both, but for how long they took; and how many there are.

    The digest of the adversarial examples is part of a record.
    """
    one, two = (
        {record.job.key: replace(record, seconds=0.0) for record in RunFolder.read(path).records}
        for path in (first, second)
    )
    keys = one.keys() | two.keys()
    return sum(one.get(key) == two.get(key) for key in keys), len(keys)


def differing(first: Path, second: Path, by_clock: Collection[str] = ()) -> list[str]:
    """A line for each difference between a run and its repetition in jobs, cases and gradients.

    Args:
        by_clock: attacks whose gradients are not compared, since their number depends on the machine.
    """
    files = read_run(first), read_run(second)
    one, two = ({record.job.key: record for record in RunFolder.read(path).records} for path in (first, second))
    counted = [key for key in one.keys() & two.keys() if one[key].gradients != two[key].gradients]
    counted = [key for key in counted if one[key].job.attack not in by_clock]
    lines = [
        _alone("the jobs of run.json", *({job.key for job in file.jobs} for file in files)),
        _alone("the records", {*one}, {*two}),
        *_other_cases(files[0].cases, files[1].cases),
        listed(
            "other counts of gradients in the rerun",
            [key for key in counted if one[key].job.attack not in by_clock],
        ),
    ]
    return [line for line in lines if line]


def _alone(what: str, one: set[str], two: set[str]) -> str:
    return "" if one == two else f"{what}: {len(one - two)} are in the run alone, {len(two - one)} in the rerun"


def _other_cases(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = [", ".join(str(case.get("case")) for case in cases) for cases in (before, now)]
    if names[0] != names[1]:
        yield f"the cases: {names[0] or 'none'}, in the rerun {names[1] or 'none'}"
        return
    for one, two in zip(before, now, strict=True):
        yield listed(f"the description of {one.get('case')} in run.json differs in the rerun", [*differences(one, two)])


Attack = tuple[str, str, str, ThreatSpec]
"""Case, data, attack or control, threat."""


def _attacks(run: RunFolder) -> dict[Attack, dict[int, ExampleRecord]]:
    found: dict[Attack, dict[int, ExampleRecord]] = {}
    for case in run.cases:
        for threat in dict.fromkeys(record.job.threat for record in run.of(case)):
            at = [record for record in run.of(case) if record.job.threat == threat]
            for role in dict.fromkeys(record.job.role for record in at):
                named = by_attack(record for record in at if record.job.role == role)
                for name, verdicts in named.items():
                    found.setdefault((case.case, case.data, name, threat), verdicts)
    return found


def _title(attack: Attack) -> str:
    case, data, name, threat = attack
    return f"{case} on {data}, {name} at {threat.eps:g} {threat.unit}"


def _figures(run: RunFolder, case: CaseInfo) -> dict[str, dict[int, ExampleRecord]]:
    clean, plain, adaptive = (by_attack(run.of(case, role)) for role in MAIN_ROLES)
    return {
        "clean": worst(clean.values()),
        "plain": worst(plain.values()),
        "adaptive": worst_case(plain, adaptive) if adaptive else {},
    }


def _case(run: RunFolder, name: str | None) -> CaseInfo:
    fitting = [case for case in run.cases if name is None or case.case == name]
    if len(fitting) != 1:
        names = ", ".join(case.case for case in run.cases)
        raise UnmaskError(f"{run.path} has {len(fitting)} cases to compare", f"name one of {names}")
    return fitting[0]


def _same_question(one: CaseInfo, two: CaseInfo) -> None:
    if (one.data, one.threat) != (two.data, two.threat):
        asked = [f"{case.data} at {case.threat.norm} {case.threat.eps:g} {case.threat.unit}" for case in (one, two)]
        raise UnmaskError(f"{one.case} was attacked on {asked[0]}, {two.case} on {asked[1]}", "run both on the same")


def _same_images(one: RunFolder, first: CaseInfo, two: RunFolder, second: CaseInfo) -> None:
    """As far as the digests tell: those of two runs on other numbers of images are not comparable."""
    a, b = (_images(run, case) for run, case in ((one, first), (two, second)))
    if a and b and a[0] == b[0] and a != b:
        raise UnmaskError(f"the images of {one.path} and {two.path} differ", "run both on the same")


def _images(run: RunFolder, case: CaseInfo) -> tuple[Any, Any] | None:
    """Their number and digest."""
    found = [
        mark for name, mark in run.config["fingerprints"].items() if name_of_target(name) == name_of_target(case.case)
    ]
    return (found[0].get("n"), found[0].get("images")) if found else None


def _pair(
    what: str, one: Mapping[int, ExampleRecord], two: Mapping[int, ExampleRecord], anytime: bool
) -> PairedComparison:
    both = sorted(one.keys() & two.keys())
    if not both:
        raise UnmaskError(f"{what}: the runs have no example in common")
    other = [i for i in both if one[i].example.label != two[i].example.label]
    if other:
        raise UnmaskError(f"{what}: example {other[0]} has another label in the second run: the data differ")
    first, second = (_shares(found, both) for found in (one, two))
    return PairedComparison(
        what,
        accuracy(first, anytime=anytime),
        accuracy(second, anytime=anytime),
        difference(first, second, anytime=anytime),
        sum(a != b for a, b in zip(first, second, strict=True)),
    )


def _shares(found: Mapping[int, ExampleRecord], index: Iterable[int]) -> list[float]:
    return [found[i].example.robust for i in index]
