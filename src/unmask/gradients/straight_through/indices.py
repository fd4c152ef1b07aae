"""Surrogates where numbers become places and places become numbers: buckets, argmax, one-hot codes, tables.

The rules have the form of those in ``floats``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.gradients.straight_through.context import SoftValue, SurrogateContext
from unmask.gradients.straight_through.floats import Args, Kwargs, Rule, named
from unmask.gradients.straight_through.labels import rearranged

__all__ = ["PLACE_RULES"]


def _hats(position: Tensor, places: int) -> Tensor:
    """How much each of the places 0 ... ``places`` - 1 is meant by a continuous position: (*shape, places).

    The weights sum to 1 and fall off slowly, by exp(-1/2) a place. A position that rises moves weight
    upwards everywhere; one beyond the places counts as the last of them, gradient included.
    """
    within = position + (position.clamp(0, places - 1) - position).detach()
    distance = within.unsqueeze(-1) - torch.arange(places, device=position.device)
    return (-0.5 * distance.abs()).softmax(-1)


def _bucketize(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """The position between the boundaries, 1 a bucket."""
    return _position(context.real(args[0]), args[1], true)


def _searchsorted(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return _position(context.real(args[1]), args[0], true)


def _position(x: Any, boundaries: Tensor, bucket: Tensor) -> Tensor | None:
    if boundaries.ndim != 1 or len(boundaries) == 0 or not isinstance(x, Tensor):
        return None
    if len(boundaries) == 1:
        return bucket + x - boundaries
    inner = bucket.clamp(1, len(boundaries) - 1)
    low, high = boundaries[inner - 1], boundaries[inner]
    return inner - 0.5 + (x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)


def _one_hot(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return _places(context.soft_value(args[0]), true.shape[-1])


def _places(soft: SoftValue | None, count: int) -> Tensor | None:
    if soft is None:
        return None
    if soft.weights is not None and soft.weights.shape[-1] == count:
        return soft.weights
    return _hats(soft.value, count)


def _scatter(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """Writing numbers at computed places: a one-hot code along ``dim``, or counts."""
    x, dim, index, value = (*args, *kwargs.values())[:4]
    dim %= true.ndim
    places = _places(context.soft_value(index), true.shape[dim])
    if places is None:
        return None
    value = context.real(value)
    if isinstance(value, Tensor):
        value = value[tuple(slice(size) for size in index.shape)].unsqueeze(-1)
    return context.real(x) + (value * places).sum(dim).movedim(-1, dim)


def _index_add(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    x, dim, index, source = (*args, *kwargs.values())[:4]
    places = _places(context.soft_value(index), true.shape[dim])
    if places is None:
        return None
    added = torch.tensordot(places.T, context.real(source).movedim(dim, 0), 1)
    return context.real(x) + kwargs.get("alpha", 1) * added.movedim(0, dim)


def _bincount(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return SoftValue(places.sum(0)) if (places := _places(context.soft_value(args[0]), len(true))) is not None else None


def _argument_of(sign: int) -> Rule:
    """The index of the largest entry (or smallest): the softmax says the weight of each index."""

    def rule(context: SurrogateContext, true: Any, args: Args, kwargs: Kwargs) -> Any:
        x, dim = context.real(args[0]), args[1] if len(args) > 1 else kwargs.get("dim")
        if dim is None and isinstance(true, Tensor) and true.dtype == torch.int64:
            return _meant(sign * x.flatten(), 0, true)
        if not isinstance(dim, int) or context.soft_value(args[0]):
            return None
        return (None, _meant(sign * x, dim, true[1])) if isinstance(true, tuple) else _meant(sign * x, dim, true)

    return rule


def _topk(context: SurrogateContext, true: Any, args: Args, kwargs: Kwargs) -> Any:
    """Of several places each stands for all of them."""
    given = {"dim": -1, "largest": True} | dict(zip(("k", "dim", "largest"), args[1:], strict=False)) | kwargs
    if context.soft_value(args[0]):
        return None
    score, dim = args[0] if given["largest"] else -args[0], given["dim"] % args[0].ndim
    if given["k"] == 1:
        return None, _meant(score, dim, true[1])
    score = score.movedim(dim, -1)
    width = score.detach().std(-1, keepdim=True).clamp_min(1e-12)  # distances have any scale
    meant = _meant(score / width, -1, true[1].movedim(dim, -1)[..., :1])
    shape = true[1].movedim(dim, -1).shape
    assert meant.weights is not None
    weights = meant.weights.expand(*shape, -1)
    return None, SoftValue(meant.value.expand(shape).movedim(-1, dim), weights.movedim(-2, dim))


def _meant(score: Tensor, dim: int, index: Tensor) -> SoftValue:
    weights = score.softmax(dim).movedim(dim, -1)
    if index.ndim == score.ndim:
        weights = weights.unsqueeze(dim % score.ndim)
    places = torch.arange(weights.shape[-1], device=score.device, dtype=score.dtype)
    return SoftValue(weights @ places, weights)


def _item(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """``table[i]`` and ``table[i, j]`` at computed places, ``x[mask]`` as it is."""
    table, index = context.soft(args[0]), args[1]
    places = index if isinstance(index, tuple) else (index,)
    if not any(map(context.soft_value, places)):
        return rearranged("__getitem__")(context, true, args, kwargs)
    if not all(isinstance(i, Tensor) and i.dtype not in (torch.bool, torch.uint8) for i in places):
        return table[index]
    weights = _weights(context, index, len(table))
    if weights is not None:
        return _expected(weights, table)
    broadcast = torch.broadcast_tensors(*places)
    result = context.real(table[index])
    for axis, place in enumerate(places):
        soft = context.soft_value(place)
        if soft is not None:

            def look(at: Tensor, axis: int = axis) -> Tensor:
                rows: Tensor = table[(*broadcast[:axis], at, *broadcast[axis + 1 :])]
                return rows

            position = soft.value.expand(broadcast[axis].shape)
            result = result + _interpolated(look, broadcast[axis], table.shape[axis], position, true.ndim)
    return result


def _expected(weights: Tensor, table: Tensor) -> Tensor | SoftValue:
    """The mean of a table's entries; where those are places themselves, such as labels, how much each is meant."""
    mean: Tensor = torch.tensordot(weights, table.to(weights.dtype), 1)
    if table.ndim != 1 or table.is_floating_point() or not 0 <= int(table.min()) <= int(table.max()) < len(table):
        return mean
    return SoftValue(mean, weights @ F.one_hot(table.long()).to(weights.dtype))


def _embedding(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return _item(context, true, (args[1] if len(args) > 1 else kwargs["weight"], args[0]), {})


def _take(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    return _item(context, true, (context.soft(args[0]).flatten(), args[1] if len(args) > 1 else kwargs["index"]), {})


def _gather(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    table, dim, index = (*args, *kwargs.values())[:3]
    soft, table = context.soft_value(index), context.soft(table)
    if soft is None:
        return None
    rise = _interpolated(lambda at: table.gather(dim, at), index, table.shape[dim], soft.value, true.ndim)
    return table.gather(dim, index) + rise


def _index_select(context: SurrogateContext, true: Tensor, args: Args, kwargs: Kwargs) -> Any:
    table, dim, index = (*args, *kwargs.values())[:3]
    if context.soft_value(index) is None:
        return None
    found = _item(context, true.movedim(dim, 0), (context.soft(table).movedim(dim, 0), index), {})
    return found if isinstance(found, SoftValue) else found.movedim(0, dim)


def _weights(context: SurrogateContext, index: Any, places: int) -> Tensor | None:
    soft = context.soft_value(index)
    return soft.weights if soft and soft.weights is not None and soft.weights.shape[-1] == places else None


def _interpolated(look: Callable[[Tensor], Tensor], index: Tensor, places: int, position: Tensor, dims: int) -> Tensor:
    """The slope of a table between the neighbours of the index, times the continuous position."""
    index = index.long() % places
    above, below = (index + 1).clamp_max(places - 1), (index - 1).clamp_min(0)
    rise = (look(above).to(position.dtype) - look(below).to(position.dtype)).detach()
    slope_at = position / (above - below).clamp_min(1)
    return rise * slope_at.reshape(*slope_at.shape, *[1] * (dims - slope_at.ndim))


PLACE_RULES: dict[str, Rule] = {
    **named(_bucketize, "bucketize"),
    **named(_searchsorted, "searchsorted"),
    **named(_one_hot, "one_hot"),
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
