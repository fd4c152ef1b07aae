"""From evidence to findings: what is wrong, where, by how much, and what helps. No model is needed here."""

from __future__ import annotations

import linecache
from collections.abc import Iterator, Sequence

from unmask.diagnosis.faults import GradientFault
from unmask.diagnosis.probe import GradientProbe
from unmask.diagnosis.trace import Event
from unmask.kinds import FindingKind
from unmask.records import Finding

__all__ = ["averaged", "draws", "findings"]

_SIGNAL = 0.8
"""A draw whose gradient has less in common with the others is noisy; whether that costs anything, attacks tell."""

_FLAT = 0.5
"""Cross entropy is saturated where it is flat on this share of the images."""

_AROUND, _WIDTH = 2, 160
"""Lines of the user's code before and after that of a finding, which a report shows, and the characters of each."""


def findings(evidence: GradientProbe) -> list[Finding]:
    """The faults of a model's gradients, worst first; none for a sound model, weak or robust."""
    return [*_shattered(evidence), *_not_finite(evidence), *_vanishing(evidence), *_stochastic(evidence)]


def _shattered(evidence: GradientProbe) -> Iterator[Finding]:
    """One for each line of the user's code, or kind of layer, whatever it calls and however many parts call it."""
    seen: dict[tuple[str, str], list[GradientFault]] = {}
    for fault in evidence.faults:
        event = fault.event
        home = event.line or event.layer or event.part
        seen.setdefault((event.file, home), []).append(fault)
    for some in seen.values():
        first, smooth = some[0], all(one.right_nearby and not one.missing for one in some)
        paths = list(dict.fromkeys(one.event.part for one in some))
        yield Finding(
            kind=FindingKind.VANISHING if smooth else FindingKind.SHATTERED,
            module=first.event.part,
            where=first.event.place,
            evidence={
                "operation": ", ".join(dict.fromkeys(one.event.name for one in some)),
                "gradient": "missing" if all(one.missing for one in some) else "wrong",
                "fidelity": {f"{radius:.3g}": round(value, 3) for radius, value in _measured(some).items()},
                "calls": len(some),
                **({"parts": paths} if len(paths) > 1 else {}),
                **_source(first.event),
            },
            remedy="a view of the model that has a gradient",
        )


def _measured(some: Sequence[GradientFault]) -> dict[float, float]:
    """By radius, of the first of them that has a gradient."""
    return next((one.fidelity for one in some if one.fidelity), {})


def _not_finite(evidence: GradientProbe) -> Iterator[Finding]:
    """Numerical instability, which the 2018 paper counts among shattered gradients."""
    found = evidence.nonfinite
    if found.share:
        event = found.event
        yield Finding(
            kind=FindingKind.SHATTERED,
            module=event.part if event else "",
            where=event.place if event else "the model's gradient",
            evidence={
                "operation": event.name if event else "",
                "gradient": "not finite",
                "images": round(found.share, 3),
                **(_source(event) if event else {}),
            },
            remedy="finite_gradients",
        )


def _vanishing(evidence: GradientProbe) -> Iterator[Finding]:
    found = evidence.saturation
    if evidence.moves_weights and not found.measured:
        return
    flat = {"flat": round(found.flat, 3), "probabilities": found.probabilities}
    inline = [one for one in evidence.parts if not one.event.module]
    stuck = [one.event for one in inline if one.stuck] or [one.event for one in inline if one.ended]
    if found.flat < _FLAT:
        # what else is wrong may cost the plain attack more, and a finding would be confirmed by it
        if found.saturated_logits >= _FLAT and not evidence.faults and not evidence.sources:
            yield Finding(
                kind=FindingKind.VANISHING,
                module="",
                where="the model's answer: most logits are saturated",
                evidence={**flat, "saturated_logits": round(found.saturated_logits, 3)},
                remedy="margin or DLR loss",
            )
        return
    if found.zero_gradient >= _FLAT and evidence.faults:
        return
    missing = found.zero_gradient >= 1.0  # on all images: no gradient exists, whatever an attack reaches without one
    if found.zero_gradient < _FLAT or not stuck:
        yield Finding(
            kind=FindingKind.SHATTERED if missing else FindingKind.VANISHING,
            module="",
            where="the model's answer: the loss is flat",
            evidence=flat,
            remedy="margin or DLR loss" if found.zero_gradient < _FLAT else "use the logits before they are saturated",
        )
        return
    for event in {(event.part, event.line): event for event in stuck}.values():
        yield Finding(
            kind=FindingKind.VANISHING if not missing and _reached(event) else FindingKind.SHATTERED,
            module=event.part,
            where=event.place,
            evidence={"operation": event.name, **flat, **_source(event)},
            remedy="a view of what goes into this operation",
        )


def _reached(event: Event) -> bool:
    return all(snapshot.edge is not None for snapshot in (*event.inputs, *event.outputs))


def _stochastic(evidence: GradientProbe) -> Iterator[Finding]:
    noise = evidence.noise
    if not evidence.sources or noise.signal >= _SIGNAL:
        return
    for event in {(event.part, event.line): event for event in evidence.sources}.values():
        yield Finding(
            kind=FindingKind.STOCHASTIC,
            module=event.part,
            where=event.place,
            evidence={
                "operation": event.name,
                "signal": round(noise.signal, 3),
                "flips": round(noise.flips, 3),
                **_source(event),
            },
            remedy=f"EOT over {max(2, draws(noise.signal))} draws",
        )


def _source(event: Event) -> dict[str, dict[str, str]]:
    """The lines around the call, by their numbers, as evidence; nothing where the user's code makes no call."""
    number = int(event.line.rpartition(":")[2]) if event.file else 0
    around = {
        str(one): text.rstrip()[:_WIDTH]
        for one in range(max(number - _AROUND, 1), number + _AROUND + 1)
        if (text := linecache.getline(event.file, one))
    }
    return {"source": around} if number and str(number) in around else {}


def draws(signal: float) -> int:
    """Draws after which the energy of the gradient's noise is a quarter of its signal's, from 1 to 32.

    >>> draws(0.5), draws(0.2)
    (4, 16)
    """
    return max(1, min(32, round(4 * (1 - signal) / max(signal, 1e-3))))


def averaged(signal: float, count: int) -> float:
    """Share of the energy of a mean of ``count`` draws that is signal, where it is ``signal`` of one draw's.

    >>> averaged(0.2, 4), averaged(1.0, 1)
    (0.5, 1.0)
    """
    return count * signal / (1 + (count - 1) * signal)
