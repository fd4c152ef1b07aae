"""Decoders inside a model: parts that make images of codes, in whose coordinates a search can walk."""

from __future__ import annotations

from torch import Tensor, nn

from unmask.diagnosis.probe import GradientProbe
from unmask.diagnosis.trace import Event, outermost
from unmask.gradients.bpda import find_part
from unmask.gradients.spaces import Latent
from unmask.models.model_wrappers import frozen_copy

__all__ = ["decoders"]

_EDGE = 0.01
"""By how much what a decoder gives may leave the box."""


def decoders(model: nn.Module, evidence: GradientProbe, x: Tensor) -> list[Latent]:
    """Spaces of the parts that take codes shorter than images ``x`` (B, C, H, W) and give such images, outermost first.

    Images in [-1, 1] are brought to [0, 1]. A search starts at codes as large as those that were seen.
    """
    seen: dict[str, Event] = {}
    for one in evidence.parts:
        if one.event.part and one.event.module and _decodes(one.event, x):
            seen.setdefault(one.event.part, one.event)
    return [_space(frozen_copy(find_part(model, path)), seen[path]) for path in sorted(outermost(seen), key=len)]


def _decodes(event: Event, x: Tensor) -> bool:
    if not event.inputs or len(event.outputs) != 1:
        return False
    code, image = event.inputs[0].value, event.outputs[0].value
    within = image.is_floating_point() and float(image.min()) >= -1 - _EDGE and float(image.max()) <= 1 + _EDGE
    flat = code.ndim == 2 or (code.ndim == 4 and code.shape[2:] == (1, 1))
    return (
        within
        and flat
        and code.is_floating_point()
        and len(code) == len(image)
        and image.shape[1:] == x.shape[1:]
        and code[0].numel() < x[0].numel()
    )


def _space(decoder: nn.Module, event: Event) -> Latent:
    code, image = event.inputs[0].value, event.outputs[0].value
    shape = code.shape[1:]
    low = -1.0 if float(image.min()) < -_EDGE else 0.0

    def images(z: Tensor) -> Tensor:
        decoded: Tensor = decoder(z.view(-1, *shape))
        return (decoded - low) / (1 - low)

    return Latent(images, code[0].numel(), scale=max(float(code.std()), 1e-3))
