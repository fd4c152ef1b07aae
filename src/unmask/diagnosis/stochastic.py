"""What a model's randomness does to its gradients, and where it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmask.diagnosis.trace import Event, trace
from unmask.losses import margin
from unmask.randomness import Stream, drawing
from unmask.types import as_output

__all__ = ["Noise", "noise", "sources"]


@dataclass(frozen=True)
class Noise:
    """Of the input gradients (B, ...) of single draws.

    ``signal`` is the share of their energy that is common to all draws, |E g|^2 / E |g|^2, without bias,
    over all examples: 1 without randomness; about 1 / (1 + the draws that a gradient of as much signal as
    noise needs). ``flips`` is the share of draws that answer another class than most.
    """

    signal: float
    flips: float


def noise(victim: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, keys: Stream, draws: int = 8) -> Noise:
    """Measured on the margin of ``victim``, at images (B, C, H, W) of classes (B,)."""
    total, energy, classes = torch.zeros_like(x, dtype=torch.float64), 0.0, []
    for draw in range(draws):
        z = x.detach().clone().requires_grad_()
        with drawing(keys.fold(draw), foreign=True), torch.enable_grad():
            output = as_output(victim(z))
            loss = margin(output, y)
        slope = torch.autograd.grad(loss.sum(), z, allow_unused=True)[0] if loss.requires_grad else None
        slope = torch.zeros_like(total) if slope is None else slope.double().nan_to_num(0.0, 0.0, 0.0)
        size = slope.flatten(1).norm(dim=1).clamp_min(1e-30)
        slope = slope / size.view(-1, *[1] * (x.ndim - 1))  # each draw of each example counts the same
        total += slope
        energy += float(slope.square().sum())
        classes.append(output.logits.argmax(1))
    most = torch.stack(classes).mode(0).values
    common = (float(total.square().sum()) - energy) / (draws * (draws - 1))
    share = max(0.0, common / (energy / draws)) if energy else 1.0
    return Noise(share, float((torch.stack(classes) != most).double().mean()))


def sources(model: nn.Module, x: Tensor, keys: Stream) -> list[Event]:
    """The operations that draw: what they give differs between draws though nothing that they are given does."""
    one, other = (trace(model, x.detach().clone().requires_grad_(), keys.fold(draw)) for draw in range(2))
    made = {held.token for event in one[-1:] for held in event.given}  # of the model itself
    found = []
    for a, b in zip(one, other, strict=False):
        if (a.name, a.line) != (b.name, b.line):
            break  # another way from here on
        given = [(p, q) for p, q in zip(a.given, b.given, strict=False) if p.token in made]
        results = [(p.value, q.value) for p, q in zip(a.made, b.made, strict=False)]
        same = all(torch.equal(p.value, q.value) for p, q in given)
        if not a.module and same and any(p.shape != q.shape or not torch.equal(p, q) for p, q in results):
            found.append(a)
        made |= {held.token for held in a.made}
    return found
