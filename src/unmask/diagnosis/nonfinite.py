"""Where gradients become NaN or infinite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn import functional as F

from unmask.diagnosis.snapshots import edge_of
from unmask.diagnosis.trace import Event, trace
from unmask.randomness import Keys

__all__ = ["NonFinite", "nonfinite"]


@dataclass(frozen=True)
class NonFinite:
    """On which share of the images the gradient has an element that is NaN or infinite, and the operation whose
    backward pass makes it of finite ones; None where there is none, or torch does not tell.
    """

    share: float
    event: Event | None = None


def nonfinite(model: nn.Module, x: Tensor, y: Tensor, keys: Keys) -> NonFinite:
    """Measured on the cross entropy of ``model`` at images (B, C, H, W) of classes (B,), on one draw of its randomness.

    No parameter of the model may require a gradient.
    """
    images = x.detach().clone().requires_grad_()
    events = trace(model, images, keys)
    answer, start = events[-1].outputs[0], edge_of(images)
    if answer.edge is None or start is None or answer.value.ndim != 2:
        return NonFinite(0.0)
    with torch.enable_grad():
        logits = answer.value.float().requires_grad_()
        slope = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), logits)[0].to(answer.value.dtype)
    own = _gradients(answer.edge, slope, [start])[0]
    if own is None or own.isfinite().all():
        return NonFinite(0.0)
    share = float((~own.isfinite()).flatten(1).any(1).double().mean())
    operations = [event for event in events if not event.module]
    snapshots = (snapshot for event in operations for snapshot in (*event.inputs, *event.outputs))
    edges = list(dict.fromkeys(snapshot.edge for snapshot in snapshots if snapshot.edge is not None))
    known = dict(zip(edges, _gradients(answer.edge, slope, edges), strict=True))
    return NonFinite(share, next(filter(lambda event: _starts(event, known), reversed(operations)), None))


def _starts(event: Event, known: dict[GradientEdge, Tensor | None]) -> bool:
    """Whether finite gradients come into the backward pass of an operation and others come out."""
    given, made = (
        [known[snapshot.edge] for snapshot in side if snapshot.edge is not None]
        for side in (event.inputs, event.outputs)
    )
    return _finite(made) and not _finite(given)


def _finite(gradients: Sequence[Tensor | None]) -> bool:
    return all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients)


def _gradients(of: GradientEdge, slope: Tensor, at: list[GradientEdge]) -> Sequence[Tensor | None]:
    try:
        return torch.autograd.grad([of], at, [slope], retain_graph=True, allow_unused=True)
    except RuntimeError:  # torch refuses to stop right before a write into a view
        return [None] * len(at)
