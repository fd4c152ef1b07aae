"""Everything that is measured of a model before it is attacked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unmask.diagnosis.behaviour.stochastic import Noise, noise, sources
from unmask.diagnosis.faults import GradientFault, cancelled, faults
from unmask.diagnosis.gradient_fidelity import GradientFidelity, from_images, gradient_fidelities
from unmask.diagnosis.nonfinite import NonFinite, nonfinite
from unmask.diagnosis.saturation import Saturation, saturation
from unmask.diagnosis.trace import Event, outermost, trace
from unmask.gradients.bpda import find_part
from unmask.kinds import FindingKind
from unmask.models.model_wrappers import frozen_copy
from unmask.randomness import Keys, use_keys
from unmask.records import Finding
from unmask.state.deep_copy import deep_copy

__all__ = [
    "GradientProbe",
    "faults_behind_refusals",
    "numbers_kept",
    "probe_gradients",
    "probe_through_view",
    "unavailable",
]

_SHARES = (1 / 3000, 1 / 100, 1 / 8, 1.0)
"""Of the attack's length, at which changes are followed; a smooth function's gradient is right at the first."""

_FAR = (1 / 4, 1 / 2, 1.0)
"""The same around the result of an attack: noise around the image may never cross a threshold."""


@dataclass(frozen=True)
class GradientProbe:
    """What the probes found of a model."""

    parts: list[GradientFidelity]  # of each operation and part, in order
    faults: list[GradientFault]
    sources: list[Event]  # of randomness
    noise: Noise  # of gradients, and
    saturation: Saturation  # of the loss, through the model itself or through a view that passes the faults
    nonfinite: NonFinite = NonFinite(0.0)  # gradients of the model itself
    moves_weights: bool = False  # whether a forward pass writes into them, so that torch may not be able to go back


def probe_gradients(model: nn.Module, x: Tensor, y: Tensor, radius: float, keys: Keys, draws: int = 2) -> GradientProbe:
    """Probe ``model`` at images (B, C, H, W) of classes (B,) that it gets right.

    ``radius`` is that of attacks, per pixel, root mean square; ``draws`` are those in which randomness is looked for.
    """
    twin = frozen_copy(model, x)
    radii = [radius * share for share in _SHARES]
    moved = _moves_weights(twin, x, keys)
    parts = gradient_fidelities(twin, x, radius / 2, radii, keys, moved=moved)
    responsible = faults(parts) or cancelled(parts, lambda: from_images(twin, x, radius / 2, radii, keys))
    if any(fault.missing for fault in responsible):
        responsible += _behind(twin, parts, radius / 2, radii, keys)
    drawn = sources(twin, x, keys.fold_in("sources"), draws) if draws > 1 else []
    evidence = GradientProbe(parts, responsible, drawn, Noise(1.0, 0.0), Saturation(0.0, 0.0, False))
    evidence = replace(evidence, nonfinite=nonfinite(twin, x, y, keys.fold_in("not finite")), moves_weights=moved)
    return probe_through_view(evidence, twin, x, y, keys)


def numbers_kept(model: nn.Module, x: Tensor, keys: Keys) -> int:
    """How many numbers the probe of a model keeps of an image in a pass, counted on the first two of ``x``."""
    few = keys.select(torch.arange(min(2, len(x))))
    events = trace(frozen_copy(model, x), x[:2].detach().clone().requires_grad_(), few)
    kept = {id(one.value): one.value.numel() for event in events for one in (*event.inputs, *event.outputs)}
    return sum(kept.values()) // len(few.rows)


def _moves_weights(model: nn.Module, x: Tensor, keys: Keys) -> bool:
    """Whether a forward pass of a copy of ``model`` writes into weights or buffers, as adaptation at test time does."""
    twin = deep_copy(model)
    held = [*twin.parameters(), *twin.buffers()]
    before = [tensor._version for tensor in held]
    with use_keys(keys, uses_torch_random=True), torch.no_grad():
        twin(x.clone())
    return before != [tensor._version for tensor in held]


def unavailable(model: nn.Module, x: Tensor, y: Tensor, radius: float, keys: Keys) -> Finding | None:
    """Whether gradients of ``model`` are missing, zero or not finite at images (B, C, H, W) of classes (B,), and where.

    What is wrong but finite it does not see: :func:`probe_gradients` does. None where nothing is missing.
    """
    twin = frozen_copy(model, x)
    silent, broken = saturation(twin, x, y, keys).zero_gradient, nonfinite(twin, x, y, keys)
    if not silent and not broken.share:
        return None
    event = broken.event
    if silent:
        responsible = faults(gradient_fidelities(twin, x, radius / 2, [radius * share for share in _SHARES], keys))
        event = next((fault.event for fault in responsible), event)
    return Finding(
        kind=FindingKind.GRADIENT,
        module=event.part if event else "",
        where=event.place if event else "the model's answer",
        evidence={"missing": round(silent, 3), "not finite": round(broken.share, 3)},
        remedy="`unmask audit` looks for a view of the model that has a gradient",
    )


def faults_behind_refusals(model: nn.Module, x: Tensor, radius: float, keys: Keys) -> list[GradientFault]:
    """Where gradients end around images (B, C, H, W) that an attack has moved: thresholds that noise does not reach."""
    radii = [radius * share for share in _FAR]
    found = faults(gradient_fidelities(frozen_copy(model, x), x, radii[0], radii, keys))
    return [fault for fault in found if fault.missing]


def _behind(
    model: nn.Module, parts: list[GradientFidelity], base: float, radii: list[float], keys: Keys
) -> list[GradientFault]:
    """Faults of parts whose inputs no gradient reaches, each part probed alone: one fault can mask another."""
    found: list[GradientFault] = []
    events = {one.event.part: one.event for one in reversed(parts) if one.event.module and _unreached(one)}
    for path in outermost(filter(None, events)):
        try:
            alone = gradient_fidelities(find_part(model, path), events[path].inputs[0].value, base, radii, keys)
        except Exception:  # of other people's code: the part cannot be called by itself
            continue
        for fault in faults(alone):
            inside = f"{path}.{fault.event.part}" if fault.event.part else path
            found.append(replace(fault, event=replace(fault.event, part=inside)))
    return found


def _unreached(one: GradientFidelity) -> bool:
    """Whether a part is called with nothing but images (B, C, H, W) in [0, 1] that change and have no gradient."""
    if len(one.event.inputs) != 1 or not one.event.outputs:
        return False
    given = one.event.inputs[0]
    image = given.edge is None and given.token in one.changed and given.value.is_floating_point()
    return image and given.value.ndim == 4 and 0 <= float(given.value.min()) <= float(given.value.max()) <= 1


def probe_through_view(evidence: GradientProbe, view: nn.Module, x: Tensor, y: Tensor, keys: Keys) -> GradientProbe:
    """The same evidence, gradients and loss measured through a view: what else is wrong where faults are passed."""
    noisy = noise(view, x, y, keys.fold_in("noise")) if evidence.sources else evidence.noise
    return replace(evidence, noise=noisy, saturation=saturation(view, x, y, keys.fold_in("saturation")))
