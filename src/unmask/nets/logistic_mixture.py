"""Distributions over the 256 values of a pixel: mixtures of discretised logistics, channel after channel.

Salimans et al., *PixelCNN++* (ICLR 2017). A pixel of C channels has K components. Its parameters, in the
last dimension of a tensor, are K log weights, C * K means, C * K logarithms of scales, and C (C - 1) / 2 * K
coefficients by which the means of a channel move with the values of the channels before it. Values are
levels, 0 to 255; means and scales are in units in which the levels span -1 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["greedy", "log_likelihood", "numbers", "scaled"]

_NARROWEST = -5.5  # of the logarithms of scales: half a level; all 256 masses stay above the smallest double
_HALF = 1 / 255  # of a level's width


def numbers(channels: int, components: int) -> int:
    """How many parameters a pixel has.

    >>> numbers(3, 10)
    100
    """
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


def scaled(levels: Tensor) -> Tensor:
    """Levels 0 to 255 as numbers from -1 to 1."""
    return levels / 127.5 - 1


def log_likelihood(parameters: Tensor, levels: Tensor) -> Tensor:
    """Log probability, in nats, of pixels (..., C) under parameters (..., P): (...,).

    >>> sure = torch.tensor([0.0, 0.0, -9.0])  # one component, in the middle, as narrow as can be
    >>> [round(float(log_likelihood(sure, torch.tensor([v])).exp()), 3) for v in (0, 127, 128, 255)]
    [0.0, 0.372, 0.372, 0.0]
    """
    weights, channels = _channels(parameters, levels.shape[-1])
    known: list[Tensor] = []
    for channel, (mean, log_scale, coefficients) in enumerate(channels):
        value = levels[..., channel, None]
        mean = _moved(mean, coefficients, known)
        weights = weights + _log_mass(value, mean, log_scale)
        known.append(scaled(value.to(mean.dtype)))
    return weights.logsumexp(-1)


def greedy(parameters: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The most probable level in [low, high], channel after channel, each given those before it.

    Parameters (..., P), bounds (..., C) -> levels (..., C), all integers. Of equals, the lowest level.
    """
    weights, channels = _channels(parameters, low.shape[-1])
    weights = weights.exp()
    steps = torch.arange(int((high - low).max()) + 1, device=low.device)
    chosen: list[Tensor] = []
    for channel, (mean, log_scale, coefficients) in enumerate(channels):
        mean = _moved(mean, coefficients, [scaled(level.to(mean.dtype)) for level in chosen])
        first, last = low[..., channel, None], high[..., channel, None]
        masses = _masses(first, steps, mean, log_scale).mul_(weights.unsqueeze(-1))  # (..., K, candidates)
        best = masses.sum(-2).masked_fill_(steps > last - first, -1).argmax(-1, keepdim=True)
        chosen.append(first + best)
        weights = masses.gather(-1, best.unsqueeze(-2).expand(*weights.shape, 1)).squeeze(-1)
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return torch.cat(chosen, -1)


def _channels(parameters: Tensor, channels: int) -> tuple[Tensor, Iterator[tuple[Tensor, Tensor, tuple[Tensor, ...]]]]:
    """Log weights (..., K); of each channel: means, logarithms of scales, a coefficient for each channel before."""
    components = parameters.shape[-1] // numbers(channels, 1)
    weights, *parts = parameters.split(components, -1)
    means, scales, coefficients = parts[:channels], parts[channels : 2 * channels], parts[2 * channels :]
    each = (
        (means[c], scales[c].clamp_min(_NARROWEST), tuple(coefficients[c * (c - 1) // 2 : c * (c + 1) // 2]))
        for c in range(channels)
    )
    return weights.log_softmax(-1), each


def _moved(mean: Tensor, coefficients: tuple[Tensor, ...], known: list[Tensor]) -> Tensor:
    for coefficient, value in zip(coefficients, known, strict=True):
        mean = mean + coefficient.tanh() * value
    return mean


def _log_mass(level: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of a level under one logistic; the outermost levels have all that lies beyond them."""
    scale = log_scale.exp()
    u, half = (scaled(level.to(mean.dtype)) - mean) / scale, _HALF / scale
    # sigmoid(u + half) - sigmoid(u - half) = sinh(half) / (cosh(u) + cosh(half))
    inner = (2 * half.sinh()).log() - u.abs() - (1 + (-2 * u.abs()).exp() + 2 * half.cosh() * (-u.abs()).exp()).log()
    return torch.where(level == 0, F.logsigmoid(u + half), torch.where(level == 255, F.logsigmoid(half - u), inner))


def _masses(first: Tensor, steps: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """The same, not as logarithms, of levels first (..., 1) + steps (S,) under components (..., K): (..., K, S).

    Faster, and enough in double precision.
    """
    inverse = (-log_scale).exp()
    half = _HALF * inverse
    low, high = ((bound - mean) * inverse for bound in (scaled(first.to(mean.dtype)), 1))
    u = torch.addcmul(low.unsqueeze(-1), (inverse / 127.5).unsqueeze(-1), steps)
    tail = u.abs_().neg_().clamp_min_(-700).exp_()
    masses = tail.div_(torch.addcmul(tail.new_ones(()), tail, tail + 2 * half.cosh().unsqueeze(-1)))
    masses.mul_((2 * half.sinh()).unsqueeze(-1))
    # the outermost levels have all that lies beyond them
    masses[..., 0] = torch.where(first == 0, (low + half).sigmoid(), masses[..., 0])
    place = (255 - first).clamp_max(len(steps) - 1)
    index = place.unsqueeze(-2).expand(*mean.shape, 1)
    edge = torch.where(first + place == 255, (half - high).sigmoid(), masses.gather(-1, index).squeeze(-1))
    return masses.scatter_(-1, index, edge.unsqueeze(-1))
