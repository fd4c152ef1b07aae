"""Finite differences through one part: a gradient for whatever has none, where the part is small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.gradients.bpda import View, first_tensor, with_part
from unmask.gradients.rows import copies_of, match_rows
from unmask.gradients.spsa import rademacher
from unmask.randomness import current, use_keys

__all__ = ["finite_differences"]


class _Differences(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Callable[[Tensor], Tensor], pairs: int, size: float, x: Tensor) -> Tensor:
        ctx.part, ctx.pairs, ctx.size, ctx.keys = part, pairs, size, current()
        made = part(x)
        ctx.save_for_backward(x, made)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None, Tensor]:
        (x, made), gradient = ctx.saved_tensors, gradients[0].flatten(1)
        slope, ones = torch.zeros_like(x), [1] * (x.ndim - 1)
        for pair in range(ctx.pairs):
            keys = ctx.keys and ctx.keys.fold_in(pair)
            with use_keys(keys):
                u = rademacher(tuple(x.shape), x)
            with use_keys(keys, uses_torch_random=True):  # both sides have the same draws
                up = ctx.part(x + ctx.size * u)
            with use_keys(keys, uses_torch_random=True):
                down = ctx.part(x - ctx.size * u)
            change = (up - down).flatten(1) / (2 * ctx.size)
            slope += _of_images((gradient * change).sum(1), made, x).view(-1, *ones) * u
        return None, None, None, slope / ctx.pairs


def _of_images(effect: Tensor, made: Tensor, x: Tensor) -> Tensor:
    """What the change of each row of ``x`` does, from the effects on the rows that a part made of them."""
    return effect[copies_of(made, len(x))].sum(1) if len(made) >= len(x) else match_rows(effect, x)


def finite_differences(part: str, pairs: int = 16, size: float = 0.05) -> View:
    """A view in which the gradient of ``part`` is taken from differences of its outputs (Spall, 1992).

    The forward pass stays the model's own, to the bit. In the backward pass, the part is queried ``pairs`` times on
    both sides of its input, in random directions: the product of its Jacobian with what comes back, smoothed over
    ``size``, with noise that grows with the length of the input. It needs no surrogate that resembles the part.

    Args:
        part: a path as in ``model.named_modules()``, of a part that maps a tensor (B, ...) to another.
        pairs: of queries for a gradient.
        size: of the change of each input number; as large as the steps of the rounding.

    Raises UnmaskError for pairs below 1 or a size that is not positive; once applied, for a path that there is not.

    >>> from torch import nn
    >>> class Steps(nn.Module):
    ...     def forward(self, x): return 2 * (10 * x).round() / 10
    >>> x = torch.full((1, 4), 0.26, requires_grad=True)
    >>> finite_differences("0", pairs=200, size=0.2)(nn.Sequential(Steps()))(x).sum().backward()
    >>> bool((x.grad - 2).abs().max() < 1)
    True
    """
    if pairs < 1 or not size > 0:
        raise UnmaskError(f"differences need pairs >= 1 and a size above 0, not {pairs} and {size}")

    def differing(forward: Callable[..., Any], call: int, *args: Any, **kwargs: Any) -> Any:
        x = first_tensor(part, args, kwargs)
        if not x.requires_grad:
            return forward(*args, **kwargs)

        @torch.no_grad()
        def alone(z: Tensor) -> Any:
            replaced = {name: z if value is x else value for name, value in kwargs.items()}
            return forward(*(z if value is x else value for value in args), **replaced)

        return _Differences.apply(alone, pairs, size, x)  # type: ignore[no-untyped-call]

    return with_part(part, differing)
