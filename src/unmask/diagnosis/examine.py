"""Everything that is measured of a model before it is attacked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from unmask.diagnosis.faults import Fault, cancelled, faults
from unmask.diagnosis.saturation import Saturation, saturation
from unmask.diagnosis.stochastic import Noise, noise, sources
from unmask.diagnosis.trace import Event, outermost
from unmask.diagnosis.transmission import Transmission, from_images, transmissions
from unmask.gradients.bpda import find_part
from unmask.randomness import Stream
from unmask.victims import lean

__all__ = ["Evidence", "examine", "switched", "through"]

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
    return through(Evidence(parts, guilty, drawn, Noise(1.0, 0.0), Saturation(0.0, 0.0, False)), twin, x, y, keys)


def switched(model: nn.Module, x: Tensor, radius: float, keys: Stream) -> list[Fault]:
    """Where gradients end around images (B, C, H, W) that an attack has moved: thresholds that noise does not reach."""
    found = faults(transmissions(lean(model), x, radius * _FAR[0], [radius * share for share in _FAR], keys))
    return [fault for fault in found if fault.lost]


def _behind(model: nn.Module, parts: list[Transmission], base: float, radii: list[float], keys: Stream) -> list[Fault]:
    """Faults of parts that are given images that gradients reach no more, each by itself: one cut hides another."""
    found: list[Fault] = []
    events = {one.event.part: one.event for one in reversed(parts) if one.event.module and _unreached(one)}
    for path in outermost(filter(None, events)):
        alone = transmissions(find_part(model, path), events[path].given[0].value, base, radii, keys)
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
