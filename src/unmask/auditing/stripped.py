"""Models that give attacks to be transferred: this one without its guilty parts, and a copy fitted to its answers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from unmask.auditing.candidates import Way, whole, without
from unmask.diagnosis.examine import Evidence
from unmask.diagnosis.trace import outermost
from unmask.gradients.copied import fit_copy
from unmask.gradients.rejoin import only
from unmask.randomness import Stream, drawing
from unmask.victims import query

__all__ = ["sources"]

_AGREES = 0.5
"""Share of the images to which a stripped model must answer as the whole does."""


def sources(
    model: nn.Module, evidence: Evidence | None, x: Tensor, radius: float, keys: Stream, steps: int = 80
) -> list[Way]:
    """Views to search instead of the model, on images (B, C, H, W) that it gets right.

    Args:
        evidence: what was found of the model's parts; None where it has none that could be seen.
        radius: as of :func:`unmask.gradients.copied.fit_copy`, as are ``keys`` and ``steps``.
    """
    found = [way for way in _stripped(model, evidence, x) if _agrees(model, way, x, keys)] if evidence else []
    copy = fit_copy(model, x, radius, keys.fold("copy"), steps=steps)
    return [*found, Way(("fit_copy(model, x, radius, keys)",), lambda _: copy)]


def _stripped(model: nn.Module, evidence: Evidence, x: Tensor) -> Iterator[Way]:
    """Without the guilty parts; or, what else is guilty, the largest part alone that takes images and gives classes."""
    paths = list(dict.fromkeys(fault.event.part for fault in evidence.faults))
    outer = outermost(filter(None, paths))
    if outer:
        yield without(outer)
    if paths and paths != outer:
        for path in whole(evidence, x):
            yield Way((f'only("{path}")',), only(path))


@torch.no_grad()
def _agrees(model: nn.Module, way: Way, x: Tensor, keys: Stream) -> bool:
    assert way.view is not None
    try:
        with drawing(keys, foreign=True):
            one, other = (query(which, x).logits for which in (model, way.view(model)))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False  # nothing but the part itself gives what comes after it what it needs
    return one.shape == other.shape and float((one.argmax(1) == other.argmax(1)).double().mean()) >= _AGREES
