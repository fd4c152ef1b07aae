"""Rows of several copies of each image: which are whose, whatever order they lie in, and under ``torch.func.vmap``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C import _functorch

from unmask.errors import UnmaskError

__all__ = ["averaged_copies", "copies_of", "each_in_turn", "match_rows", "rows_of_all", "without_repeats"]


def copies_of(value: Tensor, count: int) -> Tensor:
    """The numbers (count, k) of the rows of ``value`` (k * count, ...) that belong to each of ``count`` images.

    Copies of an image lie side by side, as by ``repeat_interleave``, or one batch after the other, as by ``repeat``.
    The order is taken in which the copies of an image differ less from each other.

    Raises UnmaskError where the number of rows is no multiple of ``count``.

    >>> copies_of(torch.tensor([1.0, 1.1, 5.0, 5.1]), 2).tolist()
    [[0, 1], [2, 3]]
    >>> copies_of(torch.tensor([1.0, 5.0, 1.1, 5.1]), 2).tolist()
    [[0, 2], [1, 3]]
    """
    if not len(value) or not count or len(value) % count:
        raise UnmaskError(f"{len(value)} rows are no whole number of copies of {count} images")
    rows = torch.arange(len(value), device=value.device)
    beside, behind = rows.view(count, -1), rows.view(-1, count).T
    if 1 in beside.shape:
        return beside
    known = value.detach().flatten(1).float().nan_to_num() if value.ndim > 1 else value.detach().float()
    return min((beside, behind), key=lambda own: float(known[own].var(1).sum()))


def averaged_copies(value: Tensor, count: int) -> Tensor:
    """The mean over the copies of each image: (k * count, ...) -> (count, ...); UnmaskError as :func:`copies_of`.

    >>> averaged_copies(torch.tensor([1.0, 3.0, 11.0, 13.0]), 2).tolist()
    [2.0, 12.0]
    """
    return value if len(value) == count else value[copies_of(value, count)].mean(1)


def match_rows(value: Tensor, like: Tensor) -> Tensor:
    """``value`` with the rows of ``like``: repeated where those are copies, averaged where its own rows are.

    Raises UnmaskError where neither number of rows is a multiple of the other.

    >>> match_rows(torch.tensor([1.0, 2.0]), torch.tensor([0.9, 2.1, 1.1, 1.9])).tolist()
    [1.0, 2.0, 1.0, 2.0]
    >>> match_rows(torch.tensor([1.0, 3.0, 11.0, 13.0]), torch.tensor([2.5, 12.5])).tolist()
    [2.0, 12.0]
    """
    if len(like) <= len(value):
        return averaged_copies(value, len(like))
    own = copies_of(like, len(value))
    owner = torch.empty(len(like), dtype=torch.int64, device=value.device)
    owner[own.flatten()] = torch.arange(len(value), device=value.device).repeat_interleave(own.shape[1])
    return value[owner]


def without_repeats(value: Tensor, images: Tensor) -> Tensor:
    """A row of ``value`` (k, ...) for each of ``images`` (B, ...), where a model computes one for each of the k images
    that differ, in order; ``value`` itself where k is another number.

    >>> without_repeats(torch.tensor([1.0, 2.0]), torch.tensor([[0.7], [0.3], [0.7]])).tolist()
    [1.0, 2.0, 1.0]
    """
    flat = images.detach().flatten(1)
    kinds, owner = torch.unique(flat, dim=0, return_inverse=True)
    if len(value) != len(kinds):
        return value
    first = torch.full((len(kinds),), len(flat), device=owner.device)
    first = first.scatter_reduce(0, owner, torch.arange(len(flat), device=owner.device), "amin")
    return value[first.argsort().argsort()[owner]]


def each_in_turn(images: Tensor, inside: Tensor) -> Tensor | None:
    """``images`` (B, ...) one by one, (1, ...), as ``torch.func.vmap`` goes through them where it makes ``inside``.

    None where ``inside`` is made by no vmap, or by one over another number of images.

    >>> rows = torch.arange(6.0).view(3, 2)
    >>> torch.func.vmap(lambda one: one + each_in_turn(rows, one)[0])(torch.zeros(3, 2)).equal(rows)
    True
    """
    if not _functorch.is_batchedtensor(inside):
        return None
    if _functorch.get_unwrapped(inside).shape[_functorch.maybe_get_bdim(inside)] != len(images):
        return None
    return _functorch._add_batch_dim(images, 0, _functorch.maybe_get_level(inside))[None]


def rows_of_all(value: Tensor) -> Tensor:
    """What ``torch.func.vmap`` computes of one image, (n, ...), for all of them, (B * n, ...); others as they are."""
    while _functorch.is_batchedtensor(value):
        value = _functorch.get_unwrapped(value).movedim(_functorch.maybe_get_bdim(value), 0).flatten(0, 1)
    return value
