"""Reasons why the robust accuracy of a case is unreliable, from its records and run.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from unmask.kinds import FindingKind, Role
from unmask.records import Example, Record
from unmask.report.formatting import at, interval, percent, threat
from unmask.report.run_folder import CaseInfo, RunFolder, by_attack, other_threats
from unmask.report.verdict.gradient_use import BLACK_BOX, black_box_only, useless_gradients
from unmask.report.verdict.indicators import indicators
from unmask.report.verdict.thresholds import FEWEST, MARGIN, WIDEST
from unmask.statistics import Accuracy

__all__ = ["Warnings", "warnings"]

_SETUP = {
    FindingKind.BATCH: "the output for an image depends on the other images of its batch: "
    "the figures hold for the batches of this run",
    FindingKind.MEMORY: "the model's output depends on earlier queries: "
    "the figures hold for its state as it was loaded",
    FindingKind.CLOCK: "the model's output depends on the time of the query: the figures hold for that of this run",
    FindingKind.UNREPEATABLE: "the model's outputs cannot be repeated, "
    "so the judge may see other outputs than the attack",
}
"""Mistakes in a model's setup after which an attack may leave too much."""

_ONE_CLASS, _BALANCED = 0.9, 0.6
"""Share of the predictions that are of one class, where at most that share of the labels is."""

_NOTHING_TRIED = 0.9
"""Share of the candidates that a model refuses, from which on an attack could try nothing."""

_STILL = 0.1
"""By how much the accuracy at eps 0 may differ from the clean one."""


@dataclass(frozen=True)
class Warnings:
    """Reasons why a figure is unreliable.

    Args:
        unclassified: the model is not shown to classify the images, so that no figure or finding means anything.
        too_few: there are too few images for any conclusion.
        setup: the model or its attacks do not work as they should.
        attack: the attacks may leave too much.
        imprecise: the interval is too wide.
        narrow: the images are of one class, so that the figure says nothing of the others.
        black_box: only attacks were run that use no gradient, whether or not they leave anything.
    """

    unclassified: tuple[str, ...] = ()
    too_few: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    attack: tuple[str, ...] = ()
    imprecise: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()
    black_box: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them, the gravest first."""
        return (*self.unclassified, *self.too_few, *self.narrow, *self.setup, *self.attack, *self.imprecise)

    @property
    def unreliable(self) -> bool:
        """Whether a better attack may leave less."""
        return bool(self.setup or self.attack)

    @property
    def upper_bound(self) -> bool:
        """Whether the figure is an upper bound of the robust accuracy and nothing more."""
        return (self.unreliable or self.black_box) and not (self.unclassified or self.too_few)


def warnings(
    run: RunFolder,
    case: CaseInfo,
    clean: Accuracy | None,
    robust: Accuracy | None,
    controls: Mapping[str, Accuracy],
    *,
    complete: bool,
) -> Warnings:
    """The warnings about ``robust``, the worst case over all attacks of a case.

    Of a figure of at most ``MARGIN`` nothing is said about attacks, since it cannot be too high by much.
    """
    black_box = black_box_only(run, case)
    return Warnings(
        unclassified=tuple(_unclassified(run, case, clean, complete)),
        too_few=tuple(_too_few(robust)) if complete else (),
        setup=tuple(_setup(run, case, controls)),
        attack=tuple(_attack(run, case, robust.value, black_box)) if robust and robust.value > MARGIN else (),
        imprecise=tuple(_imprecise(robust)) if complete else (),
        narrow=tuple(_narrow(case)),
        black_box=black_box,
    )


def _unclassified(run: RunFolder, case: CaseInfo, clean: Accuracy | None, complete: bool) -> Iterator[str]:
    for finding in case.setup_findings:
        if finding["kind"] == FindingKind.RANGE:
            where = f"({finding['where']}): {finding['remedy']}"
            yield f"the model was made for images of another range than [0, 1] {where}"
    if clean is None or not (complete or clean.n >= FEWEST):
        return
    classes = len(case.classes)
    if classes > 1 and clean.low <= 1 / classes:
        yield (
            f"the clean accuracy, {percent(clean.value)} {interval(clean)}, is not significantly above chance, "
            f"{percent(1 / classes)} for {classes} classes"
        )
    yield from _one_class(case, [example for record in run.of(case, Role.CLEAN) for example in record.examples])


def _one_class(case: CaseInfo, clean: list[Example]) -> Iterator[str]:
    if not clean:
        return
    ((most, count),) = Counter(example.predicted for example in clean).most_common(1)
    predicted, labelled = count / len(clean), sum(example.label == most for example in clean) / len(clean)
    if predicted >= _ONE_CLASS and labelled <= _BALANCED:
        yield (
            f"{percent(predicted)} of the predictions on clean images are class {case.name_of(most)}, "
            f"of the labels {percent(labelled)}"
        )


def _setup(run: RunFolder, case: CaseInfo, controls: Mapping[str, Accuracy]) -> Iterator[str]:
    yield from (_SETUP[finding["kind"]] for finding in case.setup_findings if finding["kind"] in _SETUP)
    still = controls.get("eps 0")
    asked = [r for r in run.of(case, Role.CONTROL) if r.job.options.get("control") == "eps 0"]
    same = {e.index for r in asked for e in r.examples}
    clean = [e.robust or e.refused for r in run.of(case, Role.CLEAN) for e in r.examples if e.index in same]
    if still and clean:
        value = sum(clean) / len(clean)  # with refusals, which an attack at eps 0 counts for the defense
        if not (still.low <= value <= still.high) and abs(still.value - value) > _STILL:
            yield f"the accuracy at eps 0 is {still.value:.0%}, but the clean accuracy is {value:.0%}"
    yield from _elsewhere(run, case)
    for name, found in by_attack(run.of(case, Role.PLAIN, Role.ADAPTIVE)).items():
        if outside := sum(not one.example.feasible for one in found.values()):
            yield (
                f"{outside} of {len(found)} candidates of {name} were outside the ball or box "
                "and count as the clean image"
            )


def _elsewhere(run: RunFolder, case: CaseInfo) -> Iterator[str]:
    """Attacks that were run on another ball than the figure is about."""
    records: dict[str, list[Record]] = {}
    for record in run.of(case, Role.CLEAN, Role.PLAIN, Role.ADAPTIVE):
        records.setdefault(record.job.attack, []).append(record)
    for name, mine in records.items():
        if others := other_threats(case, mine):
            yield f"{name} was run{at(others)}, not at {threat(case.threat)}, which the figure is about"


def _attack(run: RunFolder, case: CaseInfo, robust: float, black_box: bool) -> Iterator[str]:
    useless = list(useless_gradients(run, case, robust))
    yield from useless
    yield from _refused(run, case)
    yield from _left_out(run, case)
    if black_box:
        yield BLACK_BOX
    if case.audit is not None:
        for one in indicators(run, case):
            if one.failed and one.of == "adaptive" and not (useless and one.name == "unavailable gradients"):
                yield one.why


def _refused(run: RunFolder, case: CaseInfo) -> Iterator[str]:
    """Where each attack ended with candidates that are nearly all refused, of images that are not."""
    clean = {e.index for record in run.of(case, Role.CLEAN) for e in record.examples if e.robust > 0 and not e.refused}
    shares, saved, broken = [], set[int](), set[int]()
    for found in by_attack(run.of(case, Role.PLAIN, Role.ADAPTIVE)).values():
        examples = {index: one.example for index, one in found.items() if index in clean}
        if examples:
            shares.append(sum(one.refused for one in examples.values()) / len(examples))
        saved |= {i for i, one in examples.items() if one.refused and one.predicted != one.label}
        broken |= {i for i, one in examples.items() if one.robust < 0.5}
    yield from _unguided(case, len(saved - broken) / max(1, len(clean)))
    if shares and (least := min(shares)) >= _NOTHING_TRIED:
        hint = "" if case.audit is not None else "; run `unmask audit`"
        yield (
            f"the model refuses {percent(least)} of the candidates, so the attack could search almost nothing: "
            f"the figure is an upper bound only{hint}"
        )


def _unguided(case: CaseInfo, refused: float) -> Iterator[str]:
    """Where candidates of more than a few images have a wrong class, but are refused, and no view has the gradient of
    the refusal itself.
    """
    views = (case.audit or {}).get("candidate_views", ())
    if refused > MARGIN and views and not any(one.get("refusal_gradient", True) for one in views):
        yield (
            f"attacks change the class of {percent(refused)} of the images, and the model refuses what they find; its "
            "refusal has no gradient, except by approximation: the figure is an upper bound only"
        )


def _left_out(run: RunFolder, case: CaseInfo) -> Iterator[str]:
    """Searches within an attack that ended with an error."""
    failures: dict[tuple[str, str], str] = {}
    for record in run.of(case, Role.PLAIN, Role.ADAPTIVE):
        failures = {(record.job.attack, name): why for name, why in record.failures.items()} | failures
    for (attack, name), why in failures.items():
        yield f"{attack}: the search through {name} failed on some of the images, and ended there: {why}"


def _too_few(robust: Accuracy | None) -> Iterator[str]:
    if robust is not None and robust.n < FEWEST:
        images = "image" if robust.n == 1 else "images"
        yield f"{robust.n} {images}: too few for any conclusion; use at least {FEWEST} with --n"


def _narrow(case: CaseInfo) -> Iterator[str]:
    for finding in case.setup_findings:
        if finding["kind"] == FindingKind.ONE_CLASS:
            yield f"{finding['where']}: {finding['remedy']}"


def _imprecise(robust: Accuracy | None) -> Iterator[str]:
    if robust is not None and robust.n >= FEWEST and (width := robust.high - robust.low) > WIDEST:
        points = f"{100 * width:.0f} percentage points"
        yield f"the interval of the robust accuracy is {points} wide; use more images with --n"
