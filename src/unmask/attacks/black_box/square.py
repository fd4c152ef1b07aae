"""Square Attack: random search over square patches of a change, from scores alone."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.attacks.problem import BestTracker, Problem
from unmask.errors import UnmaskError
from unmask.gradients.spsa import rademacher
from unmask.losses import margin
from unmask.progress import track
from unmask.randomness import uniform, use_keys
from unmask.types import Loss

__all__ = ["Square"]

Draws = tuple[Tensor, ...]
"""What a query draws, example by example."""

_AHEAD = 16
"""Queries whose numbers are drawn at once: they are the same, and a draw costs more than its numbers."""

_PATIENCE = 63
"""Largest number of queries between two judgements of a robust random example: one square changes little."""

# p is halved after these queries of 10000.
_SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square:
    """Square Attack (Andriushchenko et al., ECCV 2020) for Linf and L2: no gradient is ever taken.

    A query changes a random square of the best point so far and keeps what raises the loss. For Linf
    the square moves to one corner of the ball in each channel; a square that would stay as it is takes
    the opposite corner, where the paper draws again. For L2 it gains a bump, and the length of
    change that another square gives up.

    Raises ``UnmaskError`` for L1, for images that are not (B, C, H, W), and for settings out of range.

    Args:
        queries: forward passes per example.
        p: share of the pixels in the first squares; it shrinks by a fixed schedule.
        loss: what is maximised.

    >>> from unmask.randomness import make_keys
    >>> from unmask.threats import Linf
    >>> view, x, y = torch.nn.Flatten(), torch.tensor([[[[0.6, 0.5]]]]), torch.tensor([0])
    >>> broken = lambda rows, x_adv, when: view(x_adv).argmax(1) != y[rows]
    >>> problem = Problem(view, x, y, Linf(0.2), make_keys(0, [0], "attack"), broken)
    >>> view(Square(queries=50)(problem)).argmax(1)
    tensor([1])
    """

    queries: int = 1000
    p: float = 0.8
    loss: Loss = margin

    def __post_init__(self) -> None:
        if self.queries < 1 or not 0 < self.p <= 1:
            raise UnmaskError(f"Square needs queries >= 1 and 0 < p <= 1, not {self.queries} and {self.p}")

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Tensor:
        problem, threat = problem.black_box(), problem.threat
        if threat.norm not in _MOVES:
            raise UnmaskError(f"Square Attack knows no {threat.norm} ball", "use linf or l2, or another attack")
        if problem.x.ndim != 4:
            raise UnmaskError(f"Square Attack needs images (B, C, H, W), not shape {tuple(problem.x.shape)}")
        first, draw, change = _MOVES[threat.norm]
        tracker = BestTracker(problem, self.loss, patience=_PATIENCE if problem.random else 0)
        rows, x, keys = tracker.active_rows(), problem.x, problem.keys
        radius = threat.radius(x).view(-1, 1, 1, 1)
        draws = list[Draws]()
        for query in track(range(self.queries), "query"):
            if not len(rows):
                break
            if not draws:
                some = range(query, min(query + _AHEAD, self.queries))
                with use_keys(keys.fold_in_each(some)):
                    draws = [*zip(*(t.split(len(rows)) for t in draw(len(some) * len(rows), x)), strict=True)]
            drawn, *draws = draws
            with use_keys(keys.fold_in(query)):
                if query:
                    x_adv = change(tracker.best[rows], x, radius, _side(self._share(query - 1), x), drawn)
                else:
                    x_adv = first(x, radius)
                x_adv = threat.project(x_adv, x)
                values = problem.objective(self.loss, rows)(x_adv)
            keep = tracker.update(rows, x_adv, values)
            if keep is not None:
                rows, x, radius, keys = rows[keep], x[keep], radius[keep], keys.select(keep)
                draws = [tuple(t[keep] for t in drawn) for drawn in draws]
        return tracker.best

    def _share(self, iteration: int) -> float:
        return float(self.p / 2 ** bisect_left(_SCHEDULE, iteration * 10000 // self.queries))


def _side(share: float, x: Tensor) -> int:
    """Of the square that holds a share of the pixels."""
    height, width = x.shape[-2:]
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def _window(x: Tensor, side: int, place: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The index of a square of each image, in all channels, at a place (B, 2) in [0, 1)."""
    batch, channels, height, width = x.shape
    corner = (place * x.new_tensor([height - side + 1, width - side + 1])).long()
    lines = corner[:, :, None] + torch.arange(side, device=x.device)
    images, planes = torch.arange(batch, device=x.device), torch.arange(channels, device=x.device)
    return images.view(-1, 1, 1, 1), planes.view(-1, 1, 1), lines[:, 0, None, :, None], lines[:, 1, None, None, :]


def _stripes(x: Tensor, radius: Tensor) -> Tensor:
    """Columns that all lie at one corner of the ball."""
    return x + radius * rademacher((len(x), x.shape[1], 1, x.shape[3]), x)


def _patch_draws(count: int, x: Tensor) -> Draws:
    """A place, and a sign for each channel."""
    return uniform((count, 2), x), rademacher((count, x.shape[1], 1, 1), x)


def _patch(best: Tensor, x: Tensor, radius: Tensor, side: int, drawn: Draws) -> Tensor:
    place, sign = drawn
    window, step = _window(x, side, place), radius * sign
    old, clean = best[window], x[window]
    same = ((clean + step).clamp(0, 1) - old).abs().flatten(1).amax(1) < 1e-7
    best[window] = clean + torch.where(same.view(-1, 1, 1, 1), -step, step)
    return best


def _tiles(x: Tensor, radius: Tensor) -> Tensor:
    """A grid of at least 5 x 5 bumps of random sign and orientation."""
    batch, channels, height, width = x.shape
    side = max(min(height, width) // 5, 1)
    down, across = -(-height // side), -(-width // side)
    sign = rademacher((batch, channels, down, across), x)
    turned = rademacher((batch, 1, down, across), x) > 0

    def spread(tile: Tensor) -> Tensor:
        return tile.repeat_interleave(side, 2).repeat_interleave(side, 3)

    bump = _bump(side, x).repeat(down, across)
    flat = _bump(side, x).T.repeat(down, across)
    tiles = spread(sign) * torch.where(spread(turned), bump, flat)
    return x + radius * _unit(tiles[..., :height, :width], (1, 2, 3))


def _shift_draws(count: int, x: Tensor) -> Draws:
    """Two places, an orientation, and a sign for each channel."""
    places = uniform((count, 2), x), uniform((count, 2), x)
    return *places, rademacher((count, 1, 1, 1), x), rademacher((count, x.shape[1], 1, 1), x)


def _shift(best: Tensor, x: Tensor, radius: Tensor, side: int, drawn: Draws) -> Tensor:
    side = min(max(side, 3) | 1, (min(x.shape[2:]) - 1) | 1)  # odd
    delta = best - x
    first, second, turned, sign = drawn
    here, there = _window(x, side, first), _window(x, side, second)
    touched = torch.zeros_like(delta)
    touched[here] = touched[there] = 1
    unused = (radius.square() - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0)
    length = (unused / x.shape[1] + (touched * delta).square().sum((2, 3), keepdim=True)).sqrt()
    bump = _bump(side, x)
    new = sign * torch.where(turned > 0, bump, bump.T)
    new = _unit(new + _unit(delta[here], (2, 3)), (2, 3))
    delta[there] = 0
    delta[here] = length * new
    return x + radius * _unit(delta, (1, 2, 3))


def _bump(side: int, like: Tensor) -> Tensor:
    """(side, side) of length 1: a positive peak in the upper half, a negative one in the lower."""
    upper = side // 2
    return _unit(torch.cat((_peak(upper, side, like), -_peak(side - upper, side, like))), (0, 1))


def _peak(height: int, width: int, like: Tensor) -> Tensor:
    """(height, width) of length 1: rings of 1 + 1/4 + 1/9 ..., which lose their largest terms outwards."""
    down = (torch.arange(height, device=like.device) - height // 2).abs()
    across = (torch.arange(width, device=like.device) - width // 2).abs()
    terms = torch.arange(1, max(height, width) // 2 + 2, device=like.device).to(like.dtype) ** -2
    rings = terms.flip(0).cumsum(0).flip(0)
    return _unit(rings[torch.maximum(down[:, None], across)], (0, 1))


def _unit(t: Tensor, dims: tuple[int, ...]) -> Tensor:
    return t / t.square().sum(dims, keepdim=True).sqrt().clamp_min(1e-12)


_MOVES = {"linf": (_stripes, _patch_draws, _patch), "l2": (_tiles, _shift_draws, _shift)}
"""The first point of a search, and a proposal from its best point: what it draws, what it is for a side of the square.
"""
