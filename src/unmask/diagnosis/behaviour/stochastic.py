"""What a model's randomness does to its gradients, and where it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unmask.diagnosis.instrumentation import keyed_query
from unmask.diagnosis.trace import Event, trace, within
from unmask.losses import margin
from unmask.models.model_wrappers import query
from unmask.randomness import Keys, use_keys

__all__ = ["Noise", "noise", "shared", "sources"]

_SHARED = 0.25
"""Of the variance between answers in different passes, the part that may be common to all rows by chance."""


@dataclass(frozen=True)
class Noise:
    """Of the input gradients (B, ...) of single draws.

    ``signal`` is the share of their energy that is common to all draws, |E g|^2 / E |g|^2, without bias,
    over all examples: 1 without randomness; about 1 / (1 + the draws that a gradient of as much signal as
    noise needs). ``flips`` is the share of draws that answer another class than most.
    """

    signal: float
    flips: float


def noise(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, keys: Keys, draws: int = 8) -> Noise:
    """Measured on the margin of ``model``, at images (B, C, H, W) of classes (B,)."""
    total, energy, classes = torch.zeros_like(x, dtype=torch.float64), 0.0, []
    for draw in range(draws):
        z = x.detach().clone().requires_grad_()
        with use_keys(keys.fold_in(draw), uses_torch_random=True), torch.enable_grad():
            output = query(model, z)
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


@torch.no_grad()
def shared(model: nn.Module, x: Tensor, keys: Keys, draws: int = 8) -> bool:
    """Whether rows of a pass have draws in common, such as one crop for the whole batch, so that averages need passes.

    Measured on copies of the first of the images ``x``, one for each row of ``keys``.
    """
    copies = x[:1].expand(len(keys.rows), *x.shape[1:])
    answers = torch.stack([keyed_query(model, copies, keys.fold_in(draw)).logits.double() for draw in range(draws)])
    within = float(answers.var(1).mean())
    between = float(answers.mean(1).var(0).mean()) - within / len(copies)
    return between > _SHARED * (between + within)


def sources(model: nn.Module, x: Tensor, keys: Keys, draws: int = 2) -> list[Event]:
    """What draws: operations that give something else in another draw though nothing that they are given differs.

    Of a model that goes another way in another draw it is what it calls there. Draws are compared with the
    first one until one differs, ``draws`` in all: a coin that is tossed for the whole batch may come up the same.
    """
    first = _traced(model, x, keys.fold_in(0))
    return next(filter(None, (_differing(first, _traced(model, x, keys.fold_in(n))) for n in range(1, draws))), [])


def _traced(model: nn.Module, x: Tensor, keys: Keys) -> list[Event]:
    return trace(model, x.detach().clone().requires_grad_(), keys)


def _differing(one: Sequence[Event], other: Sequence[Event]) -> list[Event]:
    made = {snapshot.token for event in one[-1:] for snapshot in event.inputs}  # of the model itself
    found: list[Event] = []
    explained = False  # whether Python's numbers may differ because of what has been found
    for a, b in zip(one, other, strict=False):
        if (a.name, a.part, a.line) != (b.name, b.part, b.line):
            return found or [_parting(one, a, b)]  # another way from here on
        given = [(p, q) for p, q in zip(a.inputs, b.inputs, strict=False) if p.token in made]
        results = [(p.value, q.value) for p, q in zip(a.outputs, b.outputs, strict=False)]
        same = all(torch.equal(p.value, q.value) for p, q in given)
        changed = any(p.shape != q.shape or not torch.equal(p, q) for p, q in results)
        numbers = a.numbers != b.numbers
        if not a.module and same and changed and not (numbers and explained):
            found.append(a)
            explained |= numbers
        explained |= not same and not a.outputs
        made |= {snapshot.token for snapshot in a.outputs}
    return found


def _parting(one: Sequence[Event], a: Event, b: Event) -> Event:
    """The call, in the innermost part that runs both ``a`` and ``b``, that leads to ``a``; it belongs to that part."""
    running = {event.part for event in one if event.module}
    shared = [path for path in running if within(a.part, path) and within(b.part, path)]
    part = max(shared, key=len, default="")
    calls = [event for event in one if event.module and event.part != part and within(a.part, event.part)]
    inside = [event for event in calls if within(event.part, part)]
    return replace(min(inside, key=lambda event: len(event.part), default=a), part=part)
