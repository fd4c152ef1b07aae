"""Writing and counting at computed places: what is written is spread over all places, as much as each is meant."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from unmask.gradients.straight_through.calls import Call
from unmask.gradients.straight_through.context import SoftValue
from unmask.gradients.straight_through.floats import Rule, named
from unmask.gradients.straight_through.places.addresses import Spot, along, spots

__all__ = ["SPREAD_RULES", "moves"]


def spread(shape: Sequence[int], found: Sequence[Spot], added: Any) -> Tensor:
    """A tensor of this shape with the sum of what is added at each place, times how much that is meant."""
    first = found[0].soft.value
    flat = torch.zeros(prod(shape), dtype=first.dtype, device=first.device)
    added = torch.as_tensor(added, dtype=first.dtype, device=first.device)
    for number, spot in enumerate(found):
        weights = spot.weights()
        if number:  # to first order, a change of several places is the sum of the changes of each
            weights, added = weights - weights.detach(), added.detach()
        parts = weights * added.expand(spot.address.shape).unsqueeze(-1)
        flat = flat.index_add(0, spot.at_first(spot.size).flatten(), parts.flatten())
    return flat.view(*shape)


def moves(shape: Sequence[int], found: Sequence[Spot], change: Any) -> Tensor:
    """What differs, by the gradient alone, where a write that changes values by this much goes elsewhere."""
    change = change.detach() if isinstance(change, Tensor) else change
    difference = spread(shape, found, change)
    return difference - difference.detach()


def _scatter(call: Call) -> Any:
    """``scatter``, ``scatter_add`` and ``scatter_reduce``."""
    x, dim, index, value = call.in_order()[:4]
    found = along(call.context, x.shape, dim, index)
    if not found:
        return None
    if isinstance(value, Tensor) and value.ndim:
        value = value[tuple(slice(size) for size in index.shape)]
    how = call.kwargs.get("reduce", call.args[4] if len(call.args) > 4 else None)
    return _written(call, found, value, how in ("add", "sum"), lambda t: t.gather(dim, index))


def _scatter_add(call: Call) -> Any:
    return _scatter(call.like(*call.in_order()[:4], "sum"))


def _index_put(call: Call) -> Any:
    x, indices, value = call.in_order()[:3]
    index = tuple(slice(None) if entry is None else entry for entry in indices)
    found = spots(call.context, x.shape, index)
    return _written(call, found, value, call.given(3, "accumulate", False), lambda t: t[index]) if found else None


def _index_add(call: Call) -> Any:
    return _along_axis(call, call.kwargs.get("alpha", 1))


def _along_axis(call: Call, times: float | None = None) -> Any:
    """Writes of whole slices along an axis; they are added, some times, or take the place of what was there."""
    x, dim, index, source = call.in_order()[:4]
    at = (*[slice(None)] * (dim % x.ndim), index)
    found = spots(call.context, x.shape, at)
    value = call.context.real(source)
    return _written(call, found, value if times is None else times * value, times is not None, lambda t: t[at])


def _written(call: Call, found: Sequence[Spot], value: Any, add: bool, look: Any) -> Any:
    """The surrogate of a write of a value at ``found``, by ``look``, that is added or takes the place of others."""
    x, context = call.args[0], call.context
    if not found:
        return None
    if add:
        return context.real(x) + spread(x.shape, found, context.real(value))
    change = (look(call.true) - look(x)).to(found[0].soft.value.dtype)
    if not call.true.is_floating_point():
        return context.real(x) + spread(x.shape, found, change)
    return call.true + moves(x.shape, found, change)


def _bincount(call: Call) -> Any:
    """Counts, or sums of weights."""
    weights = call.given(1, "weights")
    found = spots(call.context, call.true.shape, call.args[0])
    return SoftValue(spread(call.true.shape, found, 1 if weights is None else weights)) if found else None


def _histogram(call: Call) -> Any:
    """Of labels as floats: each place counts in the bin that it is in."""
    soft = call.label(0)
    if soft is None or soft.weights is None:
        return None
    given = (*call.args[1:], *call.kwargs.values())
    places = torch.arange(float(soft.weights.shape[-1]), device=call.true.device)
    bins = torch.stack([torch.histc(place, *given) for place in places]) if len(given) == 3 else None
    return None if bins is None else soft.weights.reshape(-1, len(places)).sum(0) @ bins


def _unique(call: Call) -> Any:
    """Each value is meant as all labels that have it, and counted as much as all labels mean it."""
    soft = call.label(0)
    if soft is None or soft.weights is None or call.kwargs.get("dim") is not None:
        return None
    several = isinstance(call.true, tuple)
    values = call.true[0] if several else call.true
    weights = soft.weights.reshape(-1, soft.weights.shape[-1])
    share = (call.args[0].reshape(-1, 1) == values).to(weights.dtype)
    mean = (share / share.sum(0)).T
    meant = SoftValue(mean @ soft.value.reshape(-1), mean @ weights)
    if not several:
        return meant
    counts = weights.sum(0)[values.long()] if call.kwargs.get("return_counts") else None
    return meant, *[None] * (len(call.true) - 1 - (counts is not None)), *([] if counts is None else [counts])


def _one_hot(call: Call) -> Any:
    soft = call.soft_value(0)
    if soft is None:
        return None
    address = torch.zeros(call.args[0].shape, dtype=torch.int64, device=call.true.device)
    return Spot(address, 1, call.true.shape[-1], soft).weights()


SPREAD_RULES: dict[str, Rule] = {
    **named(_one_hot, "one_hot"),
    **named(_scatter, "scatter", "scatter_reduce"),
    **named(_scatter_add, "scatter_add"),
    **named(_index_put, "index_put"),
    **named(_index_add, "index_add"),
    **named(_along_axis, "index_copy", "index_fill"),
    **named(_bincount, "bincount"),
    **named(_histogram, "histc"),
    **named(_unique, "unique"),
}
"""The rule of each operation, by its name without leading or trailing underscores."""
