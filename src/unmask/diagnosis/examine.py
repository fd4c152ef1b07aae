"""Everything that is measured of a model before it is attacked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from unmask.diagnosis.faults import Fault, cancelled, faults
from unmask.diagnosis.nonfinite import NonFinite, nonfinite
from unmask.diagnosis.saturation import Saturation, saturation
from unmask.diagnosis.stochastic import Noise, noise, sources
from unmask.diagnosis.trace import Event, outermost
from unmask.diagnosis.transmission import Transmission, from_images, transmissions
from unmask.gradients.bpda import find_part
from unmask.kinds import FindingKind
from unmask.randomness import Stream
from unmask.records import Finding
from unmask.victims import lean

__all__ = ["Evidence", "examine", "switched", "through", "unavailable"]

_SHARES = (1 / 3000, 1 / 100, 1 / 8, 1.0)
"""Of the attack's length, at which changes are followed; a smooth function's gradient is right at the first."""

_FAR = (1 / 4, 1 / 2, 1.0)
"""The same where an attack has come to: of a threshold that is crossed seldom, no small change tells anything."""


@dataclass(frozen=True)
class Evidence:
    """What the probes found of a model."""

    parts: list[Transmission]  # of each operation and part, in order
    faults: list[Fault]
    sources: list[Event]  # of randomness
    noise: Noise  # of gradients, and
    saturation: Saturation  # of the loss, through the model itself or through a view that passes the faults
    nonfinite: NonFinite = NonFinite(0.0)  # gradients of the model itself


def examine(model: nn.Module, x: Tensor, y: Tensor, radius: float, keys: Stream, draws: int = 2) -> Evidence:
    """Probe ``model`` at images (B, C, H, W) of classes (B,) that it gets right.

    ``radius`` is that of attacks, per pixel, root mean square; ``draws`` are those in which randomness is looked for.
    """
    twin = lean(model)
    radii = [radius * share for share in _SHARES]
    parts = transmissions(twin, x, radius / 2, radii, keys)
    guilty = faults(parts) or cancelled(parts, lambda: from_images(twin, x, radius / 2, radii, keys))
    if any(fault.lost for fault in guilty):
        guilty += _behind(twin, parts, radius / 2, radii, keys)
    drawn = sources(twin, x, keys.fold("sources"), draws) if draws > 1 else []
    evidence = Evidence(parts, guilty, drawn, Noise(1.0, 0.0), Saturation(0.0, 0.0, False))
    evidence = replace(evidence, nonfinite=nonfinite(twin, x, y, keys.fold("not finite")))
    return through(evidence, twin, x, y, keys)


def unavailable(model: nn.Module, x: Tensor, y: Tensor, radius: float, keys: Stream) -> Finding | None:
    """Whether gradients of ``model`` are missing, zero or not finite at images (B, C, H, W) of classes (B,), and where.

    What is wrong but finite it does not see: :func:`examine` does. None where nothing is missing.
    """
    twin = lean(model)
    silent, broken = saturation(twin, x, y, keys).silent, nonfinite(twin, x, y, keys)
    if not silent and not broken.share:
        return None
    event = broken.event
    if silent:
        guilty = faults(transmissions(twin, x, radius / 2, [radius * share for share in _SHARES], keys))
        event = next((fault.event for fault in guilty), event)
    return Finding(
        kind=FindingKind.GRADIENT,
        module=event.part if event else "",
        where=event.place if event else "the model's answer",
        evidence={"missing": round(silent, 3), "not finite": round(broken.share, 3)},
        remedy="`unmask audit` looks for a view of the model that has a gradient",
    )


def switched(model: nn.Module, x: Tensor, radius: float, keys: Stream) -> list[Fault]:
    """Where gradients end around images (B, C, H, W) that an attack has moved: thresholds that noise does not reach."""
    found = faults(transmissions(lean(model), x, radius * _FAR[0], [radius * share for share in _FAR], keys))
    return [fault for fault in found if fault.lost]


def _behind(model: nn.Module, parts: list[Transmission], base: float, radii: list[float], keys: Stream) -> list[Fault]:
    """Faults of parts that are given images that gradients reach no more, each by itself: one cut hides another."""
    found: list[Fault] = []
    events = {one.event.part: one.event for one in reversed(parts) if one.event.module and _unreached(one)}
    for path in outermost(filter(None, events)):
        try:
            alone = transmissions(find_part(model, path), events[path].given[0].value, base, radii, keys)
        except Exception:  # of somebody else's code: the part cannot be called by itself
            continue
        for fault in faults(alone):
            inside = f"{path}.{fault.event.part}" if fault.event.part else path
            found.append(replace(fault, event=replace(fault.event, part=inside)))
    return found


def _unreached(one: Transmission) -> bool:
    """Whether a part is called with nothing but images (B, C, H, W) in [0, 1] that change and have no gradient."""
    if len(one.event.given) != 1 or not one.event.made:
        return False
    given = one.event.given[0]
    image = given.edge is None and given.token in one.changed and given.value.is_floating_point()
    return image and given.value.ndim == 4 and 0 <= float(given.value.min()) <= float(given.value.max()) <= 1


def through(evidence: Evidence, view: nn.Module, x: Tensor, y: Tensor, keys: Stream) -> Evidence:
    """The same evidence, gradients and loss measured through a view: what else is wrong where faults are passed."""
    noisy = noise(view, x, y, keys.fold("noise")) if evidence.sources else evidence.noise
    return replace(evidence, noise=noisy, saturation=saturation(view, x, y, keys.fold("saturation")))
