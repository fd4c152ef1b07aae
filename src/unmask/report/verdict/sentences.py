"""The verdict in words: is the gradient masked, and what is the robust accuracy. The two are never mixed."""

from __future__ import annotations

from collections.abc import Sequence

from unmask.kinds import Obfuscation
from unmask.report.formatting import (
    interval,
    percent,
    probability,
    short_figure,
    short_name,
    short_percent,
    threat,
)
from unmask.report.table import Row
from unmask.report.verdict.masking import Masking, significantly_lower
from unmask.report.verdict.thresholds import MARGIN
from unmask.statistics import Accuracy

__all__ = ["MEANING", "caveat", "consequence", "headline", "others", "sentence"]

MEANING = {
    Masking.MASKED: "the adaptive accuracy is significantly lower than the plain accuracy, and at most half of it, so "
    "the plain accuracy is no evidence of robustness; this does not say that the model has no robustness",
    Masking.PARTLY_MASKED: "the adaptive accuracy is significantly lower than the plain accuracy, but more than half "
    "of it, or the diagnosis found gradients that are missing or wrong at little cost to the plain attack; this does "
    "not say that a stronger attack would give the same accuracy",
    Masking.NOT_FOUND: "the plain attack does about as well as the adaptive ones, or the diagnosis found the gradients "
    "sound; this does not say that the model is robust: see the robust accuracy",
    Masking.INCONCLUSIVE: "the warnings, or the sentence under the name of the case, say what is missing; this is no "
    "evidence of masking, and none of sound gradients",
    Masking.INCOMPLETE: "verdicts are missing, so nothing is concluded; this says nothing about the model",
}
"""What each result means, and what it does not mean."""


def headline(rows: Sequence[Row]) -> str:
    """The result of the run in one sentence without its full stop; controls do not count."""
    subjects = [row for row in rows if not row.control] or list(rows)
    if len(subjects) == 1:
        return _headline(subjects[0])
    decided = [row for row in subjects if row.masking is not Masking.INCOMPLETE]
    if not decided:
        return f"Incomplete: 0 of {len(subjects)} defenses are finished"
    masked, partly, sound, open_ = (
        sum(row.masking is kind for row in decided)
        for kind in (Masking.MASKED, Masking.PARTLY_MASKED, Masking.NOT_FOUND, Masking.INCONCLUSIVE)
    )
    total = f"{len(decided)} defenses"
    if masked:
        return f"Gradients are masked in {masked} of {total}" + (f", partly masked in {partly}" if partly else "")
    if partly:
        return f"Gradients are partly masked in {partly} of {total}"
    if open_:
        return f"Inconclusive for {open_} of {total}" + (f"; no gradient masking found in {sound}" if sound else "")
    return f"No gradient masking found in {sound} of {total}"


def others(rows: Sequence[Row]) -> str:
    """The cases of each result, and the controls; empty for a single case."""
    if len(rows) == 1:
        return ""
    groups = {kind: [row for row in rows if row.masking is kind] for kind in Masking}
    return " ".join(
        f"{str(kind).capitalize()}: {', '.join(map(_mention, group))}." for kind, group in groups.items() if group
    )


def sentence(row: Row) -> str:
    """The verdict on one case, with the numbers that it rests on."""
    match row.masking:
        case Masking.INCOMPLETE:
            return "Incomplete: run the same command again to continue; the figures are those of the finished examples."
        case Masking.INCONCLUSIVE:
            return f"{_compared(row)}. Whether gradients are masked is not known: {row.reason}."
        case Masking.MASKED if Obfuscation.DETECTOR in row.obfuscation:
            text = "the plain attack ignores the detector, the adaptive ones do not"
        case Masking.MASKED:
            text = "the plain attack fails because the gradient is masked, not because the model is robust"
        case Masking.PARTLY_MASKED if significantly_lower(row.clean, row.paired_test):
            text = "masked gradients explain a part of the plain accuracy, not all of it"
        case Masking.PARTLY_MASKED:
            text = "gradients are missing or wrong in places, but this costs the plain attack little or nothing"
        case _ if row.paired_test is None:
            text = "the model's own gradient is sufficient to break it"
        case _ if significantly_lower(row.clean, row.paired_test):
            text = "the adaptive attacks are stronger, but the diagnosis found the gradients sound"
        case _:
            text = "the plain attack is about as strong as the adaptive ones"
    return f"{_compared(row)}: {text}."


def caveat(row: Row) -> str:
    """A restriction of the robust accuracy, in two or three words; empty for most rows."""
    if row.masking is Masking.INCOMPLETE or (row.reliable and not row.upper_bound):
        return ""
    return "upper bound only" if row.upper_bound else "unreliable figure"


def consequence(row: Row) -> str:
    """What the result of one case means: a sentence about its gradient, and one about its robust accuracy."""
    if row.masking is Masking.INCOMPLETE or row.robust is None:
        return sentence(row)
    return f"{_about_the_gradient(row)} {_about_robustness(row, row.robust)}"


def _about_the_gradient(row: Row) -> str:
    plain = short_percent(row.plain.value) if row.plain else "accuracy"
    match row.masking:
        case Masking.MASKED if Obfuscation.DETECTOR in row.obfuscation:
            return f"The plain attack ignores the detector, so the {plain} that it leaves is no evidence of robustness."
        case Masking.MASKED:
            return f"Its gradient is masked, so the {plain} that the plain attack leaves is no evidence of robustness."
        case Masking.PARTLY_MASKED if significantly_lower(row.clean, row.paired_test):
            return f"Its gradient is partly masked: the plain attack leaves {plain}."
        case Masking.PARTLY_MASKED:
            return "Its gradient is missing or wrong in places, at little or no cost to the plain attack."
        case Masking.NOT_FOUND:
            return "No gradient masking was found."
    return f"Whether its gradient is masked is not known: {row.reason}."


def _about_robustness(row: Row, left: Accuracy) -> str:
    """Never that a model is robust: attacks can only show that it is not."""
    if not row.classified or row.clean is None or not row.clean.value:
        return "The robust accuracy means nothing before the model classifies the images."
    if row.reliable and left.value <= MARGIN:
        return "The model is not robust in this ball."
    if row.upper_bound:
        return f"Its robust accuracy is an upper bound only{': see the warnings' if row.warnings else ''}."
    if not row.reliable:
        return "Its robust accuracy is unreliable: see the warnings."
    return "The robust accuracy is what these attacks leave; a stronger attack may leave less."


def _headline(row: Row) -> str:
    left = row.robust
    if row.masking is Masking.INCOMPLETE:
        return "Incomplete: the run is not finished"
    if left is None or row.clean is None or not row.clean.value or not row.classified:
        return f"Inconclusive: {row.reason}"
    most, ball = "at most " if row.upper_bound else "", threat(row.threat).removesuffix(" raw")
    clean = short_percent(row.clean.value)
    if left.value > row.clean.value:  # a refusal counts as robust, and as wrong on a clean image; or other draws
        return f"{short_name(row.case)} keeps {most}{short_figure(left)} under {ball}; clean accuracy {clean}"
    return f"{short_name(row.case)} keeps {most}{short_figure(left)} of {clean} under {ball}"


def _compared(row: Row) -> str:
    if row.plain is not None and row.adaptive is not None and row.paired_test is not None:
        return (
            f"The plain attack leaves {percent(row.plain.value)}, the adaptive attacks {_figure(row.adaptive)} "
            f"({probability(row.paired_test)})"
        )
    if row.robust is None or row.clean is None:
        return f"No attack was run on {row.case}"
    clean = percent(row.clean.value)
    return f"The robust accuracy under {row.robust.attack} is {_figure(row.robust)}, the clean accuracy {clean}"


def _figure(a: Accuracy) -> str:
    return f"{percent(a.value)} {interval(a)}"


def _mention(row: Row) -> str:
    name = f"{row.case} (control)" if row.control else row.case
    text = caveat(row)
    return f"{name} ({text})" if text else name
