"""How much of what really changes in a model its gradients know of, operation by operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from unmask.diagnosis.snapshots import TensorSnapshot, Token
from unmask.diagnosis.trace import Event, trace
from unmask.randomness import Keys, normal, use_keys
from unmask.state.deep_copy import deep_copy

__all__ = ["GradientFidelity", "from_images", "gradient_fidelities", "known"]


_UNDERFLOW = 1e-30
"""Changes up to this are none."""

_SAME = 0.999
"""Gradients with less in common than this are not the same but for rounding."""

_KNOWN = (0.5, 2.0)
"""Shares of a change that a gradient may explain and be of use."""


@dataclass
class GradientFidelity:
    """One event, and what became of changes of what goes in, for each radius of the change of the images.

    ``explained`` is <J' d, c> / <d, d>, where c is the change of what goes in, d that of what comes out and is
    reached by gradients, and J' d what backpropagation makes of d: 1 where the gradient is right and the
    operation straight at that scale, 0 where it predicts nothing of the change. ``bounded`` is the same where no
    element may explain more than its own change, which counts for functions of each element by itself: of
    a steep step, few elements have a slope, and that is much too large. Held tensors are named by their tokens.
    """

    event: Event
    shares: dict[float, dict[Token, float]] = field(default_factory=dict)  # of ``explained``, by what goes in
    bounded: dict[float, float] = field(default_factory=dict)
    changed: set[Token] = field(default_factory=set)  # tensors that changed, of those given and made

    @property
    def fidelity(self) -> dict[float, float]:
        """By radius."""
        return {radius: sum(shares.values()) for radius, shares in self.shares.items()}

    @property
    def reached(self) -> bool:
        """Whether something that gradients reach went in and changed."""
        return any(snapshot.edge is not None and snapshot.token in self.changed for snapshot in self.event.inputs)

    @property
    def stuck(self) -> bool:
        """Whether this was so, and nothing that came out changed."""
        made = self.event.outputs
        return self.reached and bool(made) and not any(snapshot.token in self.changed for snapshot in made)

    @property
    def ended(self) -> bool:
        """Whether it was so, and something without a gradient came out that did not change, such as the label that
        comes with a maximum.
        """
        return self.reached and any(
            snapshot.edge is None and snapshot.token not in self.changed for snapshot in self.event.outputs
        )


def gradient_fidelities(
    model: nn.Module, x: Tensor, base: float, radii: Sequence[float], keys: Keys, *, moved: bool = False
) -> list[GradientFidelity]:
    """What gradients know of changes of images (B, C, H, W) by noise.

    Around ``x`` plus noise of ``base``, by which ties are broken, for noise of each of ``radii``, root mean
    square per pixel. All randomness of the model is the same in all passes, and so is what it keeps from call to call,
    such as a generator of its own: each pass has a copy. No parameter may require a gradient. ``moved`` says that the
    model moves its weights inside the forward pass: where torch cannot go back, nothing is then measured.
    """
    around, first, passes = _passes(model, x, base, radii, keys)
    found = [GradientFidelity(event) for event in first]
    again = bool(first) and _drawn(first[-1], around)
    for radius, _, others in passes:
        for i, event, other in _pairs(first, others):
            _compare(found[i], event, other, radius, again, moved)
    return found


def _drawn(answer: Event, around: Tensor) -> bool:
    """Whether the gradient is another one each time, of the same pass."""
    edges = [snapshot.edge for snapshot in answer.outputs[:1] if snapshot.edge is not None]
    images = TensorSnapshot.of(around).edge
    if not edges or images is None:
        return False
    value = answer.outputs[0].value
    weights = torch.linspace(-1, 1, value.numel(), device=value.device).view(value.shape)
    found = [_backward([(edges[0], weights)], [images]) for _ in range(2)]
    one, other = (None if slopes is None else slopes[0] for slopes in found)
    return one is not None and other is not None and _common(one, other) < _SAME


def known(explained: Mapping[float, float]) -> bool:
    """Whether a gradient is of use at any radius but the smallest, where nothing was ever gained.

    That of a chaotic function may come out as large as it likes.
    """
    shares = list(explained.values())
    return any(_KNOWN[0] <= share <= _KNOWN[1] for share in shares[1:] or shares)


def from_images(
    model: nn.Module, x: Tensor, base: float, radii: Sequence[float], keys: Keys
) -> Iterator[GradientFidelity]:
    """As :func:`gradient_fidelities`, of each operation what gradients from there back to the images know."""
    around, first, passes = _passes(model, x, base, radii, keys)
    others = [(radius, z, {i: other for i, _, other in _pairs(first, moved)}) for radius, z, moved in passes]
    for i, event in enumerate(first):
        found = GradientFidelity(replace(event, inputs=(TensorSnapshot.of(around),)))
        for radius, image, moved in others:
            if i in moved and not event.module:
                _compare(found, found.event, replace(moved[i], inputs=(TensorSnapshot.of(image),)), radius)
        yield found


def _passes(
    model: nn.Module, x: Tensor, base: float, radii: Sequence[float], keys: Keys
) -> tuple[Tensor, list[Event], Iterator[tuple[float, Tensor, list[Event]]]]:
    """The images and the events of the first pass; those of each other one, with its radius, one at a time."""
    around = _noisy(x, base, keys.fold_in("base")).requires_grad_()
    first = trace(deep_copy(model), around, keys)
    moved = [(radius, _noisy(around.detach(), radius, keys.fold_in("step")).requires_grad_()) for radius in radii]
    return around, first, ((radius, z, trace(deep_copy(model), z, keys)) for radius, z in moved)


def _noisy(x: Tensor, radius: float, keys: Keys) -> Tensor:
    """Images plus noise, reflected at 0 and 1: a model need not know what to do with others, such as an index of -1."""
    with use_keys(keys):
        moved = x + radius * normal(x.shape, like=x)
    return (1 - (1 - moved.abs()).abs()).clamp(0, 1)


def _common(one: Tensor, other: Tensor) -> float:
    """The cosine of the angle between two gradients."""
    one, other = (torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in (one, other))
    one, other = one.double().flatten(), other.double().flatten()
    return float(one @ other / (one.norm() * other.norm()).clamp_min(1e-300)) if one.any() or other.any() else 1.0


def _compare(
    found: GradientFidelity, event: Event, other: Event, radius: float, again: bool = False, moved: bool = False
) -> None:
    """``again`` says that backward passes draw random numbers: what two of them do not agree on explains nothing.
    ``moved`` says that the model moves its weights, for which torch may not be able to go back.
    """
    inputs, outputs = list(_changes(event.inputs, other.inputs)), list(_changes(event.outputs, other.outputs))
    found.changed |= {snapshot.token for snapshot, _ in (*inputs, *outputs)}
    outputs = [(snapshot, change) for snapshot, change in outputs if snapshot.edge is not None]
    actual = sum(float(change.abs().square().sum()) for _, change in outputs)
    if not actual:
        return
    inputs = inputs[-1:] if event.inner else inputs  # the images, through all that lies between
    wanted = {snapshot.edge: (snapshot.token, change) for snapshot, change in inputs if snapshot.edge is not None}
    reached = [(snapshot.edge, change) for snapshot, change in outputs if snapshot.edge is not None]
    slopes = _backward(reached, list(wanted))
    if slopes is None:
        if moved:
            return  # nothing can be measured
        slopes = [None] * len(wanted)
    if again:
        others = _backward(reached, list(wanted)) or slopes
        slopes = [
            a if a is None or b is None else a * max(0.0, _common(a, b)) for a, b in zip(slopes, others, strict=True)
        ]
    pairs = zip(slopes, wanted.values(), strict=True)
    products: dict[Token, Tensor] = {}
    for slope, (token, change) in pairs:
        if slope is not None:  # a tensor that is given twice counts twice
            products[token] = _product(slope, change) + products.get(token, 0.0)
    found.shares[radius] = {token: float(product.sum()) / actual for token, product in products.items()}
    if len(products) == len(outputs) == 1 and (product := next(iter(products.values()))).shape == outputs[0][1].shape:
        most = outputs[0][1].abs().square()
        found.bounded[radius] = float(product.clamp(-most, most).sum()) / actual


def _changes(
    before: Sequence[TensorSnapshot], after: Sequence[TensorSnapshot]
) -> Iterator[tuple[TensorSnapshot, Tensor]]:
    """Tensors that are not the same any more, and by how much; integers and booleans as numbers."""
    for snapshot, moved in zip(before, after, strict=False):
        one, other = snapshot.value, moved.value
        if one.shape == other.shape and one.is_complex() == other.is_complex():
            change = _without_nan(_wide(other) - _wide(one))
            if change.numel() and change.abs().max() > _UNDERFLOW:
                yield snapshot, change


def _wide(value: Tensor) -> Tensor:
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


def _without_nan(value: Tensor) -> Tensor:
    if value.is_complex():
        return torch.view_as_complex(torch.view_as_real(value.resolve_conj()).nan_to_num(0.0, 0.0, 0.0))
    return value.nan_to_num(0.0, 0.0, 0.0)


def _product(slope: Tensor, change: Tensor) -> Tensor:
    """Element by element; of complex numbers torch's gradient holds both partial derivatives."""
    product = _wide(slope).conj() * change
    return product.real if product.is_complex() else product


def _backward(outputs: list[tuple[GradientEdge, Tensor]], inputs: list[GradientEdge]) -> Sequence[Tensor | None] | None:
    """What of the changes of ``outputs`` backpropagates to each of ``inputs``; None where torch cannot go back."""
    if not outputs or not inputs:
        return [None] * len(inputs)
    edges, changes = zip(*outputs, strict=True)
    if edges[0] in inputs:
        return [None if edge not in edges else changes[edges.index(edge)] for edge in inputs]
    changes = tuple(change.to(torch.complex64) if change.is_complex() else change.float() for change in changes)
    try:
        return torch.autograd.grad(edges, inputs, changes, retain_graph=True, allow_unused=True)
    except RuntimeError:  # torch refuses to stop at some places right before a write into a view
        try:
            return _passing(edges, inputs, changes)
        except RuntimeError:
            return None


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
        if moved is not None and len(moved.outputs) == len(event.outputs):
            yield i, event, moved


def _counted(events: Sequence[Event]) -> Iterator[tuple[Event, int]]:
    seen: Counter[tuple[object, ...]] = Counter()
    for event in events:
        seen[_call(event, 0)] += 1
        yield event, seen[_call(event, 0)]


def _call(event: Event, count: int) -> tuple[object, ...]:
    return event.name, event.part, event.line, event.module, count
