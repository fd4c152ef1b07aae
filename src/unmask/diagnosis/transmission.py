"""How much of what really changes in a model its gradients know of, operation by operation."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from unmask.diagnosis.trace import Event, Held, Token, trace
from unmask.randomness import Stream, drawing, normal

__all__ = ["Transmission", "astray", "known", "transmissions"]


_UNDERFLOW = 1e-30
"""Changes up to this are none."""

_KNOWN = (0.5, 2.0)
"""Shares of a change that a gradient may explain and be of use."""


@dataclass
class Transmission:
    """One event, and what became of changes of what goes in, for each radius of the change of the images.

    ``explained`` is <J' d, c> / <d, d>, where c is the change of what goes in, d that of what comes out and is
    reached by gradients, and J' d what backpropagation makes of d: 1 where the gradient is right and the
    operation straight at that scale, 0 where it knows nothing of the change. ``bounded`` is the same where no
    element may explain more than its own change, which counts for functions of each element by itself: of
    a steep step, few elements have a slope, and that is much too large. Held tensors are named by their tokens.
    """

    event: Event
    shares: dict[float, dict[Token, float]] = field(default_factory=dict)  # of ``explained``, by what goes in
    bounded: dict[float, float] = field(default_factory=dict)
    changed: set[Token] = field(default_factory=set)  # tensors that changed, of those given and made

    @property
    def explained(self) -> dict[float, float]:
        """By radius."""
        return {radius: sum(shares.values()) for radius, shares in self.shares.items()}

    @property
    def stuck(self) -> bool:
        """Whether something that gradients reach went in and changed, and nothing that came out did."""
        made = any(held.token in self.changed for held in self.event.made)
        return not made and any(held.edge is not None and held.token in self.changed for held in self.event.given)


def transmissions(model: nn.Module, x: Tensor, base: float, radii: Sequence[float], keys: Stream) -> list[Transmission]:
    """What gradients know of changes of images (B, C, H, W) by noise.

    Around ``x`` plus noise of ``base``, by which ties are broken, for noise of each of ``radii``, root mean
    square per pixel. All randomness of the model is the same in all passes, and so is what it keeps from call to call,
    such as a generator of its own: each pass has a copy. No parameter may require a gradient.
    """
    around, first, boxed = _base(model, x, base, keys)
    found = [Transmission(event) for event in first]
    for radius in radii:
        moved = _moved(around, radius, keys.fold("step"), boxed)
        for i, event, other in _pairs(first, trace(copy.deepcopy(model), moved, keys)):
            _compare(found[i], event, other, radius)
    return found


def known(explained: Mapping[float, float]) -> bool:
    """Whether a gradient is of use at any radius but the smallest, where nothing was ever gained.

    That of a chaotic function may come out as large as it likes.
    """
    shares = list(explained.values())
    return any(_KNOWN[0] <= share <= _KNOWN[1] for share in shares[1:] or shares)


def astray(
    model: nn.Module, x: Tensor, base: float, radii: Sequence[float], keys: Stream
) -> tuple[int, dict[float, float]] | None:
    """The first operation of which gradients know nothing any more, counted from the images on, at any radius.

    Each step of a long or chaotic computation may be right, and nothing be known of the whole. Arguments are as of
    :func:`transmissions`; what comes back is the number of the event there and what is explained of it, or None.
    """
    around, first, boxed = _base(model, x, base, keys)
    images, found = get_gradient_edge(around), [dict[float, float]() for _ in first]
    for radius in radii:
        moved = _moved(around, radius, keys.fold("step"), boxed)
        change = (moved - around).detach().double()
        for i, event, other in _pairs(first, trace(copy.deepcopy(model), moved, keys)):
            made = [(held.edge, d) for held, d in _changes(event.made, other.made) if held.edge is not None]
            if made and not event.module:
                (slope,) = _backward(made, [images])
                product = 0.0 if slope is None else float((slope.double() * change).sum())
                found[i][radius] = product / sum(float(d.square().sum()) for _, d in made)
    return next(((i, shares) for i, shares in enumerate(found) if shares and not known(shares)), None)


def _base(model: nn.Module, x: Tensor, radius: float, keys: Stream) -> tuple[Tensor, list[Event], bool]:
    """Images plus noise, what the model does of them, and whether it needs them to stay in [0, 1]."""
    for boxed in (False, True):
        around = _moved(x, radius, keys.fold("base"), boxed)
        events = trace(copy.deepcopy(model), around, keys)
        if all(bool(held.value.isfinite().all()) for held in events[-1].made):
            break
    return around, events, boxed


def _moved(x: Tensor, radius: float, keys: Stream, boxed: bool) -> Tensor:
    """Images plus noise; ``boxed``, turned back where it would leave [0, 1]."""
    with drawing(keys):
        there = x.detach() + radius * normal(x.shape, like=x)
    return (1 - (there.remainder(2) - 1).abs() if boxed else there).requires_grad_()


def _compare(found: Transmission, event: Event, other: Event, radius: float) -> None:
    inputs, outputs = list(_changes(event.given, other.given)), list(_changes(event.made, other.made))
    found.changed |= {held.token for held, _ in (*inputs, *outputs)}
    outputs = [(held, change) for held, change in outputs if held.edge is not None]
    actual = sum(float(change.square().sum()) for _, change in outputs)
    if not actual:
        return
    inputs = inputs[-1:] if event.inner else inputs  # the images, through all that lies between
    wanted = {held.edge: (held.token, change) for held, change in inputs if held.edge is not None}
    slopes = _backward([(held.edge, change) for held, change in outputs if held.edge is not None], list(wanted))
    pairs = zip(slopes, wanted.values(), strict=True)
    products = {token: slope.double() * change for slope, (token, change) in pairs if slope is not None}
    found.shares[radius] = {token: float(product.sum()) / actual for token, product in products.items()}
    if len(products) == len(outputs) == 1 and (product := next(iter(products.values()))).shape == outputs[0][1].shape:
        most = outputs[0][1].square()
        found.bounded[radius] = float(product.clamp(-most, most).sum()) / actual


def _changes(before: Sequence[Held], after: Sequence[Held]) -> Iterator[tuple[Held, Tensor]]:
    """Tensors that are not the same any more, and by how much; integers and booleans as numbers."""
    for held, moved in zip(before, after, strict=False):
        if held.value.shape == moved.value.shape and not held.value.is_complex():
            change = (moved.value.double() - held.value.double()).nan_to_num(0.0, 0.0, 0.0)
            if change.numel() and change.abs().max() > _UNDERFLOW:
                yield held, change


def _backward(outputs: list[tuple[GradientEdge, Tensor]], inputs: list[GradientEdge]) -> Sequence[Tensor | None]:
    if not outputs or not inputs:
        return [None] * len(inputs)
    edges, changes = zip(*outputs, strict=True)
    if edges[0] in inputs:
        return [None if edge not in edges else changes[edges.index(edge)] for edge in inputs]
    changes = tuple(change.float() for change in changes)
    try:
        return torch.autograd.grad(edges, inputs, changes, retain_graph=True, allow_unused=True)
    except RuntimeError:  # torch refuses to stop at some places right before a write into a view
        return _passing(edges, inputs, changes)


def _passing(
    edges: Sequence[GradientEdge], inputs: list[GradientEdge], changes: Sequence[Tensor]
) -> list[Tensor | None]:
    """What passes through ``inputs`` of a backward pass that goes on to the images."""
    passed: dict[GradientEdge, Tensor | None] = {}
    hooks = [
        edge.node.register_prehook(lambda slopes, edge=edge: passed.update({edge: slopes[edge.output_nr]}))
        for edge in inputs
    ]
    try:
        torch.autograd.backward(edges, changes, retain_graph=True)
    finally:
        for hook in hooks:
            hook.remove()
    return [passed.get(edge) for edge in inputs]


def _pairs(base: Sequence[Event], other: Sequence[Event]) -> Iterator[tuple[int, Event, Event]]:
    """Events that are the same call in both passes: the k-th of an operation in a part at a line."""
    places = {_call(event, count): event for event, count in _counted(other)}
    for i, (event, count) in enumerate(_counted(base)):
        moved = places.get(_call(event, count))
        if moved is not None and len(moved.made) == len(event.made):
            yield i, event, moved


def _counted(events: Sequence[Event]) -> Iterator[tuple[Event, int]]:
    seen: Counter[tuple[object, ...]] = Counter()
    for event in events:
        seen[_call(event, 0)] += 1
        yield event, seen[_call(event, 0)]


def _call(event: Event, count: int) -> tuple[object, ...]:
    return event.name, event.part, event.line, event.module, count
