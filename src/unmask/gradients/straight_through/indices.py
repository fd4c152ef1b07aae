"""Surrogates where numbers become places and places become numbers: buckets, argmax, one-hot codes, tables.

The rules have the form of those in ``floats``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.gradients.straight_through.context import Call, SoftValue
from unmask.gradients.straight_through.floats import Rule, named, soft_choice
from unmask.gradients.straight_through.labels import rearranged

__all__ = ["PLACE_RULES"]

_NEAR = 0.2
"""Share of the spread of distances up to which another place is nearly as near as the nearest."""

_SURE = 1e-4
"""Of the weights of places, the share beside the largest below which their slopes are lost."""


def _hats(position: Tensor, places: int) -> Tensor:
    """How much each of the places 0 ... ``places`` - 1 is meant by a continuous position: (*shape, places).

    The weights sum to 1 and fall off slowly, by exp(-1/2) a place. A position that rises moves weight
    upwards everywhere; one beyond the places counts as the last of them, gradient included.
    """
    within = position + (position.clamp(0, places - 1) - position).detach()
    distance = within.unsqueeze(-1) - torch.arange(places, device=position.device)
    return (-0.5 * distance.abs()).softmax(-1)


def _position(x: Any, boundaries: Tensor, bucket: Tensor) -> Tensor | None:
    """The position between the boundaries, 1 a bucket."""
    if boundaries.ndim != 1 or len(boundaries) == 0 or not isinstance(x, Tensor):
        return None
    if len(boundaries) == 1:
        return bucket + x - boundaries
    inner = bucket.clamp(1, len(boundaries) - 1)
    low, high = boundaries[inner - 1], boundaries[inner]
    return inner - 0.5 + (x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)


def _places(soft: SoftValue | None, count: int) -> Tensor | None:
    """How much each of ``count`` places is meant (*shape, count); None where no gradient reaches them."""
    if soft is None:
        return None
    if soft.weights is not None and soft.weights.shape[-1] == count:
        return soft.weights
    return _hats(soft.value, count)


def _scatter(call: Call) -> Any:
    """Writing numbers at computed places: a one-hot code along ``dim``, or counts."""
    x, dim, index, value = call.in_order()[:4]
    dim %= call.true.ndim
    places = _places(call.context.soft_value(index), call.true.shape[dim])
    if places is None:
        return None
    value = call.context.real(value)
    if isinstance(value, Tensor):
        value = value[tuple(slice(size) for size in index.shape)].unsqueeze(-1)
    return call.context.real(x) + (value * places).sum(dim).movedim(-1, dim)


def _index_add(call: Call) -> Any:
    x, dim, index, source = call.in_order()[:4]
    places = _places(call.context.soft_value(index), call.true.shape[dim])
    if places is None:
        return None
    added = torch.tensordot(places.T, call.context.real(source).movedim(dim, 0), 1)
    return call.context.real(x) + call.kwargs.get("alpha", 1) * added.movedim(0, dim)


def _bincount(call: Call) -> Any:
    places = _places(call.soft_value(0), len(call.true))
    return None if places is None else SoftValue(places.sum(0))


def _argument_of(sign: int) -> Rule:
    """The index of the largest entry (or smallest): the softmax says the weight of each index."""

    def rule(call: Call) -> Any:
        x, dim, true = call.real(0), call.given(1, "dim"), call.true
        if dim is None and isinstance(true, Tensor) and true.dtype == torch.int64:
            return _meant(_scores(sign, x.flatten(), 0), 0, true)
        if not isinstance(dim, int) or call.soft_value(0):
            return None
        meant = _meant(_scores(sign, x, dim), dim, true[1] if isinstance(true, tuple) else true)
        return (None, meant) if isinstance(true, tuple) else meant

    return rule


def _scores(sign: int, x: Tensor, dim: int) -> Tensor:
    """What is largest where the index is: scores as they are; distances, which have any scale, by their spread."""
    return x if sign > 0 else -x / (_NEAR * x.detach().std(dim, keepdim=True).clamp_min(1e-12))


def _topk(call: Call) -> Any:
    """Of several places each stands for all of them."""
    if call.soft_value(0):
        return None
    x, index = call.args[0], call.true[1]
    score, dim = x if call.given(3, "largest", True) else -x, call.given(2, "dim", -1) % x.ndim
    if call.given(1, "k") == 1:
        return None, _meant(score, dim, index)
    score = score.movedim(dim, -1)
    width = score.detach().std(-1, keepdim=True).clamp_min(1e-12)  # distances have any scale
    meant = _meant(score / width, -1, index.movedim(dim, -1)[..., :1])
    shape = index.movedim(dim, -1).shape
    assert meant.weights is not None
    weights = meant.weights.expand(*shape, -1)
    return None, SoftValue(meant.value.expand(shape).movedim(-1, dim), weights.movedim(-2, dim))


def _meant(score: Tensor, dim: int, index: Tensor) -> SoftValue:
    weights = soft_choice(score, dim, _SURE).movedim(dim, -1)
    if index.ndim == score.ndim:
        weights = weights.unsqueeze(dim % score.ndim)
    places = torch.arange(weights.shape[-1], device=score.device, dtype=score.dtype)
    return SoftValue(weights @ places, weights)


def _item(call: Call) -> Any:
    """``table[i]`` and ``table[i, j]`` at computed places, ``x[mask]`` as it is."""
    context, index = call.context, call.args[1]
    table = context.soft(call.args[0])
    places = index if isinstance(index, tuple) else (index,)
    if not any(map(context.soft_value, places)):
        return rearranged("__getitem__")(call)
    if not all(isinstance(i, Tensor) and i.dtype not in (torch.bool, torch.uint8) for i in places):
        kept = rearranged("__getitem__")(call)
        return table[index] if kept is None else kept
    meant = context.soft_value(index)
    if meant and meant.weights is not None and meant.weights.shape[-1] == len(table):
        return _expected(meant.weights, table)
    broadcast = torch.broadcast_tensors(*places)
    result = context.real(table[index])
    for axis, place in enumerate(places):
        soft = context.soft_value(place)
        if soft is not None:

            def look(at: Tensor, axis: int = axis) -> Tensor:
                rows: Tensor = table[(*broadcast[:axis], at, *broadcast[axis + 1 :])]
                return rows

            position = soft.value.expand(broadcast[axis].shape)
            result = result + _interpolated(look, broadcast[axis], table.shape[axis], position, call.true.ndim)
    return result


def _expected(weights: Tensor, table: Tensor) -> Tensor | SoftValue:
    """The mean of a table's entries; where those are places themselves, such as labels, how much each is meant."""
    mean: Tensor = torch.tensordot(weights, table.to(weights.dtype), 1)
    if table.ndim != 1 or table.is_floating_point() or not 0 <= int(table.min()) <= int(table.max()) < len(table):
        return mean
    return SoftValue(mean, weights @ F.one_hot(table.long()).to(weights.dtype))


def _embedding(call: Call) -> Any:
    return _item(call.like(call.given(1, "weight"), call.args[0]))


def _take(call: Call) -> Any:
    return _item(call.like(call.context.soft(call.args[0]).flatten(), call.given(1, "index")))


def _gather(call: Call) -> Any:
    table, dim, index = call.in_order()[:3]
    soft, table = call.context.soft_value(index), call.context.soft(table)
    if soft is None:
        return None
    rise = _interpolated(lambda at: table.gather(dim, at), index, table.shape[dim], soft.value, call.true.ndim)
    return table.gather(dim, index) + rise


def _index_select(call: Call) -> Any:
    table, dim, index = call.in_order()[:3]
    if call.context.soft_value(index) is None:
        return None
    found = _item(call.like(call.context.soft(table).movedim(dim, 0), index, true=call.true.movedim(dim, 0)))
    return found if isinstance(found, SoftValue) else found.movedim(0, dim)


def _interpolated(look: Callable[[Tensor], Tensor], index: Tensor, places: int, position: Tensor, dims: int) -> Tensor:
    """The slope of a table between the neighbours of the index, times the continuous position."""
    index = index.long() % places
    above, below = (index + 1).clamp_max(places - 1), (index - 1).clamp_min(0)
    rise = (look(above).to(position.dtype) - look(below).to(position.dtype)).detach()
    slope_at = position / (above - below).clamp_min(1)
    return rise * slope_at.reshape(*slope_at.shape, *[1] * (dims - slope_at.ndim))


PLACE_RULES: dict[str, Rule] = {
    **named(lambda call: _position(call.real(0), call.args[1], call.true), "bucketize"),
    **named(lambda call: _position(call.real(1), call.args[0], call.true), "searchsorted"),
    **named(lambda call: _places(call.soft_value(0), call.true.shape[-1]), "one_hot"),
    **named(_scatter, "scatter", "scatter_add"),
    **named(_index_add, "index_add"),
    **named(_bincount, "bincount"),
    **named(_argument_of(1), "argmax", "max"),
    **named(_argument_of(-1), "argmin", "min"),
    **named(_topk, "topk"),
    **named(_item, "getitem"),
    **named(_embedding, "embedding"),
    **named(_take, "take"),
    **named(_gather, "gather"),
    **named(_index_select, "index_select"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
