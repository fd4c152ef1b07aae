"""What the adversary may do: move an input within a ball around it, inside the box [0, 1].

A radius is a number and a unit. Publications mix at least five, so each threat names its own:

``raw``        the norm itself
``rms``        power mean over all d elements: the norm is eps * d^(1/p) (L2: sqrt(d), L1: d, Linf: 1)
``rms_pixel``  power mean over the H*W pixels only, channels not averaged: eps * (H*W)^(1/p)
``relative``   to the norm of the input itself: eps * ||x||
``per_dim``    the norm divided by d: eps * d
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.randomness import normal, uniform
from unmask.threats.projections import EDGE, changed_inside, norm_of, project, scaled, soft_thresholded, sparse

__all__ = ["L1", "L2", "UNITS", "Linf", "Threat", "check_threat", "parse"]


class Threat(Protocol):
    """A ball of radius ``eps`` in ``unit`` around each input, cut by the box [0, 1].

    Inputs are (B, ...) with values in [0, 1]; ``dataclasses.replace(threat, eps=...)`` gives another radius.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]  # lets type checkers accept dataclasses.replace and asdict

    @property
    def norm(self) -> str:
        """``linf``, ``l2`` or ``l1``."""

    @property
    def eps(self) -> float:
        """The radius, in ``unit``."""

    @property
    def unit(self) -> str:
        """One of ``UNITS``."""

    def radius(self, x: Tensor) -> Tensor:
        """(B,) the radius around each example as a plain norm, in the dtype of ``x``."""

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The Euclidean nearest point to ``x_adv`` of ball and box around ``x``; points inside stay as they are."""

    def start(self, x: Tensor) -> Tensor:
        """A random point: uniform in the ball, then projected onto the box. Drawn from ``unmask.randomness``."""

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(B,) float64, how far ``x_adv`` is from ``x``, in ``unit``."""

    def ascent(
        self, grad: Tensor, at: Tensor | None = None, x: Tensor | None = None, width: Tensor | None = None
    ) -> Tensor:
        """The direction of unit norm in which a function with this gradient rises fastest; zero where it is zero.

        NaN coordinates count as zero. L1 alone uses the other arguments:

        Args:
            grad: (B, ...).
            at: like ``grad``, where in the box the step begins; None for coordinates that are not pixels.
            x: like ``grad``, the image.
            width: (B,) how many elements the step is spread over, at least 1; None for the norm's own choice.
        """


@dataclass(frozen=True)
class Linf:
    """Every element may change by up to ``eps``.

    Raises ``UnmaskError`` for a negative or infinite ``eps`` and an unknown ``unit``, as ``L2`` and ``L1`` do.

    >>> import torch
    >>> Linf(0.25).project(torch.tensor([[0.9, 0.2]]), torch.tensor([[0.5, 0.0]]))
    tensor([[0.7500, 0.2000]])
    """

    eps: float
    unit: str = "raw"
    norm: str = field(default="linf", init=False, repr=False)

    def __post_init__(self) -> None:
        _check(self.eps, self.unit)

    def radius(self, x: Tensor) -> Tensor:
        return _radius(self.eps, self.unit, math.inf, x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        r = _column(self.radius(x), x)
        return torch.clamp(x_adv, x - r, x + r).clamp_(0, 1)

    def start(self, x: Tensor) -> Tensor:
        return self.project(x + _column(self.radius(x), x) * (2 * uniform(x.shape, x) - 1), x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return _distance(self.unit, math.inf, x_adv, x)

    def ascent(
        self, grad: Tensor, at: Tensor | None = None, x: Tensor | None = None, width: Tensor | None = None
    ) -> Tensor:
        return grad.sign()  # of NaN: 0


@dataclass(frozen=True)
class L2:
    """The Euclidean length of the change is at most ``eps``.

    >>> import torch
    >>> L2(0.5).project(torch.tensor([[0.6, 0.8]]), torch.zeros(1, 2))
    tensor([[0.3000, 0.4000]])
    """

    eps: float
    unit: str = "raw"
    norm: str = field(default="l2", init=False, repr=False)

    def __post_init__(self) -> None:
        _check(self.eps, self.unit)

    def radius(self, x: Tensor) -> Tensor:
        return _radius(self.eps, self.unit, 2, x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return project(x_adv, x, self.radius(x), 2, scaled)

    def start(self, x: Tensor) -> Tensor:
        # The first d coordinates of a uniform point on the sphere in d + 2 dimensions are uniform in the ball.
        d = _size(x)
        draw = normal((len(x), d + 2), x)
        inside = draw[:, :d] / torch.linalg.vector_norm(draw, dim=1, keepdim=True)
        return self.project(x + _column(self.radius(x), x) * inside.view_as(x), x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return _distance(self.unit, 2, x_adv, x)

    def ascent(
        self, grad: Tensor, at: Tensor | None = None, x: Tensor | None = None, width: Tensor | None = None
    ) -> Tensor:
        rows = grad.flatten(1).nan_to_num()
        peak = rows.abs().amax(1, keepdim=True)
        rows = rows / torch.where(peak > 0, peak, 1)  # first, so that no square under- or overflows
        length: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return (rows / length.clamp_min(1)).view_as(grad)


@dataclass(frozen=True)
class L1:
    """The absolute changes of all elements add up to at most ``eps``.

    >>> import torch
    >>> L1(1.0).project(torch.tensor([[1.5, 0.7, 0.1]]), torch.zeros(1, 3))
    tensor([[0.9000, 0.1000, 0.0000]])
    """

    eps: float
    unit: str = "raw"
    norm: str = field(default="l1", init=False, repr=False)

    def __post_init__(self) -> None:
        _check(self.eps, self.unit)

    def radius(self, x: Tensor) -> Tensor:
        return _radius(self.eps, self.unit, 1, x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return project(x_adv, x, self.radius(x), 1, soft_thresholded)

    def start(self, x: Tensor) -> Tensor:
        # d + 1 exponential draws, divided by their sum, without the last: uniform in the solid simplex.
        d = _size(x)
        draw = -torch.log1p(-uniform((len(x), d + 1), x))
        sign = torch.where(uniform(x.shape, x) < 0.5, -1.0, 1.0)
        inside = draw[:, :d] / draw.sum(1, keepdim=True)
        return self.project(x + _column(self.radius(x), x) * sign * inside.view_as(x), x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return _distance(self.unit, 1, x_adv, x)

    def ascent(
        self, grad: Tensor, at: Tensor | None = None, x: Tensor | None = None, width: Tensor | None = None
    ) -> Tensor:
        """Equal steps along the ``width`` elements with the largest gradient, of those that the box does not stop.

        The steepest direction is the single largest element (``width`` 1), which makes slow progress; one in a
        hundred is the choice of Tramèr & Boneh, *Adversarial Training and Robustness for Multiple Perturbations*
        (NeurIPS 2019). Without a ``width`` it is one in a hundred, but at most two thirds of the elements that ``at``
        has changed and that are not at an edge of the box: the search settles on fewer and fewer, as that of Croce &
        Hein, *Mind the box* (ICML 2021). An element at an edge that the step would leave does not count; see
        :func:`unmask.threats.projections.sparse`.
        """
        rows = grad.flatten(1).nan_to_num()
        free = torch.ones_like(rows, dtype=torch.bool)
        if at is not None:
            free = torch.where(rows > 0, at.flatten(1) < 1 - EDGE, at.flatten(1) > EDGE)
        if width is None:
            width = rows.new_full((len(rows),), max(1, round(0.01 * rows.shape[1])))
            if at is not None and x is not None:
                changed = changed_inside(at, x)
                width = torch.where(changed > 0, torch.minimum(width, (changed / 1.5).clamp_min(1)), width)
        return sparse(rows, free, width[:, None].to(rows.dtype)).view_as(grad)


_NORMS: dict[str, Callable[[float, str], Threat]] = {"linf": Linf, "l2": L2, "l1": L1}


def parse(norm: str, eps: float, unit: str = "raw") -> Threat:
    """The threat named on a command line; ``norm`` in any case. ``UnmaskError`` for an unknown one.

    >>> parse("Linf", 0.3, "raw")
    Linf(eps=0.3, unit='raw')
    """
    if norm.lower() not in _NORMS:
        raise UnmaskError(f"unknown norm {norm!r}", f"use one of {', '.join(_NORMS)}")
    return _NORMS[norm.lower()](eps, unit)


def _pixels(x: Tensor) -> int:
    if x.ndim < 3:
        raise UnmaskError(f"rms_pixel needs images (B, ..., H, W), got shape {tuple(x.shape)}", "use rms")
    return x.shape[-2] * x.shape[-1]


# How long one unit is as a plain norm of order p around x: a number, or (B,) float64.
_LENGTHS: dict[str, Callable[[Tensor, float], Tensor | float]] = {
    "raw": lambda x, p: 1.0,
    "rms": lambda x, p: _size(x) ** (1 / p),
    "rms_pixel": lambda x, p: _pixels(x) ** (1 / p),
    "relative": lambda x, p: norm_of(x, p),
    "per_dim": lambda x, p: float(_size(x)),
}

UNITS = tuple(_LENGTHS)


def _check(eps: float, unit: str) -> None:
    if not (math.isfinite(eps) and eps >= 0):
        raise UnmaskError(f"eps must be a finite number >= 0, got {eps}")
    if unit not in _LENGTHS:
        raise UnmaskError(f"unknown unit {unit!r}", f"use one of {', '.join(UNITS)}")


def _size(x: Tensor) -> int:
    return math.prod(x.shape[1:])


def _column(row: Tensor, x: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), to combine with ``x``."""
    return row.view(-1, *[1] * (x.ndim - 1))


def _radius(eps: float, unit: str, p: float, x: Tensor) -> Tensor:
    return x.new_zeros(len(x)).add_(eps * _LENGTHS[unit](x, p))


def _distance(unit: str, p: float, x_adv: Tensor, x: Tensor) -> Tensor:
    norm = norm_of(x_adv.double() - x.double(), p)
    return torch.where(norm > 0, norm / _LENGTHS[unit](x, p), 0.0)  # relative to a black image: 0 or inf


def check_threat(threat: object) -> None:
    """UnmaskError for what is no threat.

    >>> check_threat(0.1)
    Traceback (most recent call last):
    unmask.errors.UnmaskError: the threat is a float: give one such as Linf(8 / 255)
    """
    if not all(hasattr(threat, name) for name in ("norm", "eps", "unit", "project", "distance")):
        raise UnmaskError(f"the threat is a {type(threat).__name__}", "give one such as Linf(8 / 255)")
