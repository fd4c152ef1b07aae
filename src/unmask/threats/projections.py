"""Exact Euclidean projection onto the intersection of a ball and the box [0, 1], and steepest sparse ascent in it.

The nearest point of a row outside the ball is known up to one number, at which a non-decreasing piecewise
linear function takes a given value: a scale for L2, a threshold for L1 (Duchi et al., ICML 2008).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["EDGE", "changed_inside", "norm_of", "project", "scaled", "soft_thresholded", "sparse"]

EDGE = 1e-6
"""What lies nearer to 0 or 1 is at the edge of the box: sums with an image round."""


def norm_of(x: Tensor, p: float) -> Tensor:
    """(B,) float64; the sums of large inputs need it."""
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1).double(), p, dim=1)
    return norm


def project(
    x_adv: Tensor, x: Tensor, radius: Tensor, p: float, shrink: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Clip to the box, then replace the rows that this leaves outside of the ball.

    ``shrink(a, room, r)`` takes the sizes ``a`` of the wanted changes, the ``room`` up to the box (both (N, d)) and
    the radius (N, 1) in float64, and gives the sizes in [0, room] of the nearest change whose norm is ``r``.
    """
    nearest = x_adv.clamp(0, 1)
    limit = radius.double() * (1 + max(4 * torch.finfo(x.dtype).eps, 1e-12))  # rounding leaves no row far for ever
    far = (norm_of(nearest - x, p) > limit).nonzero().squeeze(1)
    if len(far):
        centre = x[far].flatten(1)
        wanted = x_adv[far].flatten(1) - centre
        sizes = shrink(wanted.abs(), torch.where(wanted > 0, 1 - centre, centre), radius[far, None].double())
        moved = centre + sizes.copysign(wanted)
        # Rounding must not add up over many elements to a step out of the ball, so it goes towards the centre.
        beyond = (moved - centre).abs() > sizes
        nearest[far] = torch.where(beyond, moved.nextafter(centre), moved).view(-1, *x.shape[1:])
    return nearest


def scaled(a: Tensor, room: Tensor, r: Tensor) -> Tensor:
    """min(s a, room) of Euclidean length r, whose square is concave and piecewise linear in u = s^2."""
    squares, caps, target = a.square(), room.square(), r.square()

    def measure(u: Tensor) -> tuple[Tensor, Tensor]:
        free = u.to(a.dtype) * squares < caps
        slope = _total(torch.where(free, squares, 0))
        return u * slope + _total(torch.where(free, 0, caps)), slope

    low = (target / _total(squares).clamp_min(torch.finfo(torch.float64).tiny)).clamp_max(1)
    s = _reach(target, measure, low, torch.ones_like(low)).sqrt()
    return torch.minimum(s.to(a.dtype) * a, room)


def soft_thresholded(a: Tensor, room: Tensor, r: Tensor) -> Tensor:
    """min(max(a - t, 0), room) that adds up to r; its sum is piecewise linear in t."""
    a64, room64 = a.double(), room.double()  # a - t cancels

    def measure(minus_t: Tensor) -> tuple[Tensor, Tensor]:
        left = a64 + minus_t
        rising = ((left >= 0) & (left < room64)).count_nonzero(1).unsqueeze(1)
        return _total(left.clamp_min_(0).clamp_max_(room64)), rising

    low = -a64.amax(1, keepdim=True)
    left = a64 + _reach(r, measure, low, torch.zeros_like(low))
    return left.clamp_min_(0).clamp_max_(room64).to(a.dtype)


def sparse(grad: Tensor, free: Tensor, width: Tensor) -> Tensor:
    """A change of L1 norm 1, in equal parts, along the ``width`` elements with the largest slopes that are free.

    Rows of ``grad`` and of the mask ``free`` are (N, d), ``width`` is (N, 1), at least 1; of 2.5 the third element gets
    half a part. Elements that are not free, but whose slopes are as large, are moved by a part besides. A projection,
    which takes an equal amount from all that were moved and brings these back, then leaves an optimum on the edge of
    the box where it is.
    """
    slope, order = grad.abs().sort(dim=1, descending=True, stable=True)
    counts = free.gather(1, order) & (slope > 0)
    before = counts.cumsum(1) - counts.to(torch.long)
    part = (width - before).clamp(0, 1).mul_(slope > 0)
    part /= torch.minimum(width, counts.sum(1, keepdim=True)).clamp_min(1)
    return torch.zeros_like(grad).scatter_(1, order, part).mul_(grad.sign())


def changed_inside(at: Tensor, x: Tensor) -> Tensor:
    """(B,) elements of ``at`` that are not those of ``x`` and lie inside the box, not at an edge of it."""
    count: Tensor = ((at != x) & (at > EDGE) & (at < 1 - EDGE)).flatten(1).sum(1)
    return count.to(at.dtype)


def _total(x: Tensor) -> Tensor:
    return x.sum(1, keepdim=True, dtype=torch.float64)


def _reach(target: Tensor, measure: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor) -> Tensor:
    """Where between ``low`` and ``high`` a non-decreasing piecewise linear function of each row reaches ``target``.

    ``measure`` gives its value and its slope to the right. Newton's method is exact from the moment it is on the
    right piece; bisection takes over where a step would leave the bracket.
    """
    point = low
    for _ in range(100):
        value, slope = measure(point)
        gap = target - value
        done = gap.abs() <= 1e-13 * target
        if done.all():
            break
        low, high = torch.where(gap >= 0, point, low), torch.where(gap <= 0, point, high)
        step = point + gap / slope
        step = torch.where((step > low) & (step < high), step, (low + high) / 2)
        point = torch.where(done, point, step)
    return point
