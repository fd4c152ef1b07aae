"""Where in memory an index points, and how much each of the places beside it is meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unmask.gradients.straight_through.context import SoftValue, SurrogateContext
from unmask.gradients.straight_through.labels import fitted

__all__ = ["Spot", "along", "filled", "hats", "spots"]


class Spot(NamedTuple):
    """The elements of a table that an index selects, and the axis along which it may have meant others."""

    address: Tensor  # of each element that is selected, in the table made flat
    stride: int  # between neighbouring places along the axis
    size: int  # of the axis
    soft: SoftValue  # of the index, in the shape of the selected elements

    def place(self) -> Tensor:
        """The place of each element along the axis."""
        return self.address // self.stride % self.size

    def at(self, places: Tensor) -> Tensor:
        """The addresses of other places along the axis."""
        return self.address + (places - self.place()) * self.stride

    def at_first(self, count: int) -> Tensor:
        """The addresses of the first places along the axis: (*shape, count)."""
        first = self.at(torch.zeros_like(self.address))
        return first.unsqueeze(-1) + self.stride * torch.arange(count, device=first.device)

    def weights(self) -> Tensor:
        """How much each place of the axis is meant: (*shape, size)."""
        weights = self.soft.weights
        return hats(self.soft.value, self.size) if weights is None else fitted(weights, self.size)


def spots(context: SurrogateContext, shape: Sequence[int], index: Any) -> list[Spot]:
    """One for each soft place in an index of a tensor of this shape; masks select what they really select."""
    entries = filled(list(index) if isinstance(index, tuple) else [index], len(shape))
    softs = [None if _is_mask(entry) else _place(context, entry) for entry in entries]
    if not any(softs):
        return []
    used = [_dimensions(entry) for entry in entries]
    device = next(entry.device for entry, soft in zip(entries, softs, strict=True) if soft)
    address = torch.arange(prod(shape), device=device).view(*shape)[tuple(entries)]
    found = []
    for number, (entry, soft) in enumerate(zip(entries, softs, strict=True)):
        if soft is None:
            continue
        axis, count = sum(used[:number]), entry.numel()
        each = torch.arange(count, device=device)
        which = each.view(-1, *[1] * (len(shape) - axis - 1)).expand(*shape[:axis], count, *shape[axis + 1 :])
        which = which[(*entries[:number], each.view(entry.shape), *entries[number + 1 :])]
        found.append(Spot(address, prod(shape[axis + 1 :]), shape[axis], _rearranged(soft, which)))
    return found


def along(
    context: SurrogateContext,
    shape: Sequence[int],
    dim: int,
    index: Tensor,
    pick: Callable[..., Tensor] = torch.gather,
) -> list[Spot]:
    """As :func:`spots`, of ``gather`` and ``scatter``; ``pick(table, dim, index)`` selects."""
    soft, dim = _place(context, index), dim % max(1, len(shape))
    if soft is None:
        return []
    address = pick(torch.arange(prod(shape), device=index.device).view(*shape), dim, index)
    weights = None if soft.weights is None else soft.weights.expand(*address.shape, -1)
    soft = SoftValue(soft.value.expand(address.shape), weights)
    return [Spot(address, prod(shape[dim + 1 :]), shape[dim], soft)]


def _place(context: SurrogateContext, index: Any) -> SoftValue | None:
    """The soft value of an index, unless it is an order too long for the weights of all its places."""
    soft = context.soft_value(index)
    return None if soft is not None and soft.long_order else soft


def hats(position: Tensor, places: int) -> Tensor:
    """How much each of the places 0 ... ``places`` - 1 is meant by a continuous position: (*shape, places).

    The weights sum to 1 and fall off slowly, by exp(-1/2) a place. A position that rises moves weight
    upwards everywhere; one beyond the places counts as the last of them, gradient included.
    """
    within = position + (position.clamp(0, places - 1) - position).detach()
    distance = within.unsqueeze(-1) - torch.arange(places, device=position.device)
    return (-0.5 * distance.abs()).softmax(-1)


def filled(entries: list[Any], dims: int) -> list[Any]:
    """The entries of an index with slices in place of ``...``."""
    at = next((at for at, entry in enumerate(entries) if entry is Ellipsis), None)
    if at is None:
        return entries
    rest = dims - sum(map(_dimensions, entries))
    return [*entries[:at], *[slice(None)] * rest, *entries[at + 1 :]]


def _is_mask(entry: Any) -> bool:
    return isinstance(entry, Tensor) and entry.dtype in (torch.bool, torch.uint8)


def _dimensions(entry: Any) -> int:
    """How many dimensions of a tensor an entry of an index uses."""
    if entry is None or entry is Ellipsis or isinstance(entry, bool):
        return 0
    return entry.ndim if _is_mask(entry) else 1


def _rearranged(soft: SoftValue, which: Tensor) -> SoftValue:
    weights = soft.weights
    kept = None if weights is None else weights.reshape(-1, weights.shape[-1])[which]
    return SoftValue(soft.value.reshape(-1)[which], kept)
