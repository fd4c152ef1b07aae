"""The rule for the first part of a verdict: is the gradient masked? The second part is the robust accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from unmask.kinds import FindingKind
from unmask.report.verdict.thresholds import LEVEL, MARGIN
from unmask.report.verdict.warnings import Warnings
from unmask.statistics import Accuracy, PairedTest

__all__ = [
    "NOT_CLASSIFIED",
    "Judgement",
    "Masking",
    "MaskingEvidence",
    "confirmed",
    "masking",
    "named",
    "significantly_lower",
]

NOT_CLASSIFIED = "the model is not shown to classify these images"

_HARMLESS = (FindingKind.VANISHING, FindingKind.STOCHASTIC)
"""Kinds of findings that count only where they cost the plain attack something; others always do."""


class Masking(StrEnum):
    """Whether the model's gradient is masked."""

    MASKED = "masked"  # adaptive attacks beat the plain one, and leave at most half of its figure
    PARTLY_MASKED = "partly masked"  # they leave more; or gradients are missing or wrong at no cost to the plain attack
    NOT_FOUND = "no masking found"
    INCONCLUSIVE = "inconclusive"
    INCOMPLETE = "incomplete"

    @property
    def slug(self) -> str:
        """The name as one word, for style sheets."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True)
class MaskingEvidence:
    """The input of the rule; None for attacks that are not in the run.

    Args:
        complete: whether the verdicts of all attacks of the run are there.
        paired_test: from the plain attacks to the adaptive ones alone.
        findings: of a diagnosis of the gradients.
        sound: whether there was a diagnosis that found nothing, and the plain attack had gradients.
        warnings: about the figure.
        plain_gradient: whether the plain attack had gradients on nearly all images.
    """

    complete: bool
    clean: Accuracy | None
    plain: Accuracy | None
    adaptive: Accuracy | None
    paired_test: PairedTest | None
    findings: Sequence[Mapping[str, Any]]
    sound: bool
    warnings: Warnings
    plain_gradient: bool = True


class Judgement(NamedTuple):
    """Whether the gradient is masked, and, for an inconclusive answer, why it is."""

    masking: Masking
    reason: str = ""


def significantly_lower(clean: Accuracy | None, gap: PairedTest | None) -> bool:
    """Whether the adaptive attacks alone beat the plain ones, by enough and by more than chance."""
    return _differ(clean, gap) and gap is not None and gap.p < LEVEL


def confirmed(
    findings: Sequence[Mapping[str, Any]], clean: Accuracy | None, gap: PairedTest | None
) -> list[Mapping[str, Any]]:
    """The findings that matter: missing and wrong gradients always, others where they cost the plain attack something.

    A random or steep model that the plain attack breaks as well as any other masks nothing.
    """
    return [found for found in findings if found["kind"] not in _HARMLESS or significantly_lower(clean, gap)]


def named(
    findings: Sequence[Mapping[str, Any]], clean: Accuracy | None, gap: PairedTest | None
) -> list[Mapping[str, Any]]:
    """The findings that a report names: those that are :func:`confirmed`, and randomness that costs the plain attack as
    much though chance may explain it. The evidence of the latter holds the cost, in percentage points, and p.
    """
    sure = confirmed(findings, clean, gap)
    if sure == findings or gap is None or not _differ(clean, gap):
        return sure
    cost = {"points": round(100 * gap.value, 1), "p": round(gap.p, 3)}
    return [
        found if found in sure else {**found, "evidence": {**found["evidence"], "cost": cost}}
        for found in findings
        if found in sure or found["kind"] == FindingKind.STOCHASTIC
    ]


def masking(known: MaskingEvidence) -> Judgement:
    """The judgement of the first rule that applies.

    >>> from unmask.statistics import accuracy, paired_test
    >>> before, after = [1] * 20, [0] * 20
    >>> plain, adaptive = accuracy(before), accuracy(after)
    >>> test = paired_test(before, after)
    >>> masking(MaskingEvidence(True, plain, plain, adaptive, test, (), False, Warnings())).masking
    <Masking.MASKED: 'masked'>
    """
    return _prerequisites(known) or _proven(known) or _doubts(known) or _not_proven(known)


def _prerequisites(known: MaskingEvidence) -> Judgement | None:
    """What has to be there before anything can be concluded."""
    if not known.complete or known.clean is None or (known.adaptive or known.plain) is None:
        return Judgement(Masking.INCOMPLETE)
    if not known.clean.value:
        return Judgement(Masking.INCONCLUSIVE, "no image is classified correctly, so there is nothing to attack")
    if known.warnings.unclassified:
        return Judgement(Masking.INCONCLUSIVE, NOT_CLASSIFIED)
    if known.warnings.too_few:
        return Judgement(Masking.INCONCLUSIVE, "too few images for any conclusion")
    return None


def _proven(known: MaskingEvidence) -> Judgement | None:
    """The paired test; where a diagnosis found nothing wrong, a stronger attack is no more than that."""
    if (
        known.sound
        or not significantly_lower(known.clean, known.paired_test)
        or known.plain is None
        or known.adaptive is None
    ):
        return None
    return Judgement(Masking.MASKED if known.adaptive.value <= known.plain.value / 2 else Masking.PARTLY_MASKED)


def _doubts(known: MaskingEvidence) -> Judgement | None:
    """Reasons why nothing can be concluded from attacks that agree."""
    if known.warnings.imprecise:
        return Judgement(Masking.INCONCLUSIVE, "too few images: the interval of the robust accuracy is too wide")
    if known.warnings.unreliable:
        return Judgement(Masking.INCONCLUSIVE, "the robust accuracy is unreliable")
    if known.warnings.black_box:
        return Judgement(Masking.INCONCLUSIVE, "only black-box attacks were run, which use no gradient")
    return None


def _not_proven(known: MaskingEvidence) -> Judgement:
    if confirmed(known.findings, known.clean, known.paired_test):
        return Judgement(Masking.PARTLY_MASKED)
    if known.paired_test is None:
        return _one_attack(known)
    if _differ(known.clean, known.paired_test) and not known.sound:
        return Judgement(Masking.INCONCLUSIVE, "the attacks differ, but not significantly")
    return Judgement(Masking.NOT_FOUND)


def _one_attack(known: MaskingEvidence) -> Judgement:
    """Without a comparison, only a successful plain attack gives evidence: the model's gradients are useful."""
    assert known.clean is not None
    if known.plain is not None and not known.plain_gradient:
        return Judgement(Masking.INCONCLUSIVE, "the attack had no gradient; run `unmask audit`")
    if known.plain is not None and known.plain.value <= MARGIN * known.clean.value:
        return Judgement(Masking.NOT_FOUND)
    missing = "adaptive" if known.adaptive is None else "plain"
    return Judgement(Masking.INCONCLUSIVE, f"there is no {missing} attack for a comparison")


def _differ(clean: Accuracy | None, gap: PairedTest | None) -> bool:
    return gap is not None and gap.value >= MARGIN * (clean.value if clean else 1.0)
