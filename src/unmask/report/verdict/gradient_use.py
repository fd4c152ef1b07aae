"""Which attacks of a case used gradients of the model, and of what use these were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unmask.kinds import Access, FindingKind, Role
from unmask.records import GradientCounts, Record
from unmask.report.formatting import percent, place
from unmask.report.run_folder import CaseInfo, RunFolder
from unmask.report.verdict.indicators import BY_SCORES

__all__ = ["BLACK_BOX", "black_box_only", "no_plain_gradient", "useless_gradients"]

BLACK_BOX = "only black-box attacks were run; a white-box attacker may do better: the figure is an upper bound only"

_ACCESS = (Access.SCORES, Access.LABELS)
"""Of attackers who see answers alone."""

_USELESS = 0.1
"""Share of the images on which gradients may be of no use; half as many as are left, where that is less."""


def black_box_only(run: RunFolder, case: CaseInfo) -> bool:
    """Whether no attack of the case used gradients of the model; False where none has been tried."""
    if case.audit is not None and case.audit.get("not_diagnosed_reason"):
        return True
    attacks = _by_name(run, case)
    return bool(attacks) and all(_black_box(case, name, records) for name, records in attacks.items())


def useless_gradients(run: RunFolder, case: CaseInfo, robust: float) -> Iterator[str]:
    """What to say where every attack that takes gradients had none, or NaN in them, on too many of the images.

    The share is that of the attack with the fewest such images. Attacks on other models do not count. ``robust`` is
    the share that all attacks leave.
    """
    many = min(_USELESS, robust / 2)
    counts = [_sum(records) for name, records in _by_name(run, case).items() if name not in BY_SCORES]
    taken = [count for count in counts if count.examples]
    if not taken:
        return
    hint = "" if case.audit is not None else "; run `unmask audit`"
    none = min(count.none / count.examples for count in taken)
    if none >= many:
        ends = _ends(_place(case, "missing", "wrong"), "ends")
        yield f"the attack had no gradient on {percent(none)} of the images{ends}{hint}"
    not_finite = min(count.not_finite / count.examples for count in taken)
    if not_finite >= many:
        ends = _ends(_place(case, "not finite"), "becomes NaN")
        yield f"the attack's gradient had NaN or infinite elements on {percent(not_finite)} of the images{ends}{hint}"


def no_plain_gradient(run: RunFolder, case: CaseInfo) -> bool:
    """Whether the plain attack had no gradient on a tenth of the images or more, at the start or throughout."""
    known = (case.audit or {}).get("gradients", {}).get("plain", {})
    count = _sum(run.of(case, Role.PLAIN))
    return known.get("zero_gradient", 0.0) >= _USELESS or (
        count.examples > 0 and count.none / count.examples >= _USELESS
    )


def _by_name(run: RunFolder, case: CaseInfo) -> dict[str, list[Record]]:
    attacks: dict[str, list[Record]] = {}
    for record in run.of(case, Role.PLAIN, Role.ADAPTIVE):
        attacks.setdefault(record.job.attack, []).append(record)
    return attacks


def _black_box(case: CaseInfo, name: str, records: Sequence[Record]) -> bool:
    """By what run.json says of the attacker's access; where it does not, by whether passes went backward."""
    if name in case.access:
        return case.access[name] in _ACCESS
    if any(record.job.role == Role.PLAIN for record in records):
        return False
    differences = any(record.job.options.get("spsa") for record in records)
    return not any(record.backwards for record in records) and (
        differences or all(record.gradients is None for record in records)
    )


def _sum(records: Sequence[Record]) -> GradientCounts:
    return GradientCounts.total([record.gradients for record in records if record.gradients is not None])


def _place(case: CaseInfo, *evidence: str) -> str:
    """The first place at which a gradient ends or becomes NaN, as the setup or the diagnosis found it."""
    fitting = [
        *(
            one
            for one in case.setup_findings
            if one["kind"] == FindingKind.GRADIENT and any(one["evidence"].get(key) for key in evidence)
        ),
        *(one for one in case.findings if one["evidence"].get("gradient") in evidence),
    ]
    return place(fitting[0]) if fitting else ""


def _ends(where: str, verb: str) -> str:
    return f"; the first place where it {verb}: {where}" if where else ""
