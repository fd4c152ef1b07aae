"""Everything that is measured of a model before it is attacked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from unmask.diagnosis.faults import EXPLAINED, Fault, faults
from unmask.diagnosis.saturation import Saturation, saturation
from unmask.diagnosis.stochastic import Noise, noise, sources
from unmask.diagnosis.trace import Event
from unmask.diagnosis.transmission import Transmission, astray, known, transmissions
from unmask.randomness import Stream
from unmask.victims import lean

__all__ = ["Evidence", "examine", "through"]

_SHARES = (1 / 3000, 1 / 100, 1 / 8, 1.0)
"""Of the attack's length, at which changes are followed; a smooth function's gradient is right at the first."""


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
    twin, base, radii = lean(model), radius / 2, [radius * share for share in _SHARES]
    parts = transmissions(twin, x, base, radii, keys)
    found = faults(parts)
    if not found and _unknown(parts[-1]):
        found = _composed(parts, astray(twin, x, base, radii, keys))
    drawn = sources(twin, x, keys.fold("sources"), draws) if draws > 1 else []
    return through(Evidence(parts, found, drawn, Noise(1.0, 0.0), Saturation(0.0, 0.0, False)), twin, x, y, keys)


def _unknown(one: Transmission) -> bool:
    return bool(one.explained) and not known(one.explained)


def _composed(parts: list[Transmission], lost: tuple[int, dict[float, float]] | None) -> list[Fault]:
    """Where a chain of operations of the model's own goes wrong though each of them is right."""
    if lost is None or _unknown(parts[lost[0]]):
        return []
    number, explained = lost
    nearest = next(iter(explained.values()))
    return [Fault(parts[number].event, lost=False, explained=explained, right_nearby=nearest >= EXPLAINED)]


def through(evidence: Evidence, view: nn.Module, x: Tensor, y: Tensor, keys: Stream) -> Evidence:
    """The same evidence, gradients and loss measured through a view: what else is wrong where faults are passed."""
    noisy = noise(view, x, y, keys.fold("noise")) if evidence.sources else evidence.noise
    return replace(evidence, noise=noisy, saturation=saturation(view, x, y, keys.fold("saturation")))
