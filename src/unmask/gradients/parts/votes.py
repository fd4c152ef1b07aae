"""Heads for :func:`unmask.submodule_output` of several networks whose votes are counted where no gradient reaches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unmask.gradients.bpda import Surrogate

__all__ = ["leads", "median_votes", "soft_votes"]


def soft_votes(classes: int) -> Surrogate:
    """A head for :func:`submodule_output` of several parts: the logarithm of the mean of their probabilities.

    For votes of networks that are counted outside of torch: (B, networks * classes) logits -> (B, classes).

    >>> soft_votes(2)(torch.tensor([[0.0, 9.0, 9.0, 0.0]])).exp()
    tensor([[0.5000, 0.5000]])
    """
    return lambda logits: (
        logits.unflatten(1, (-1, classes)).log_softmax(2).logsumexp(1) - math.log(logits.shape[1] / classes)
    )


def median_votes(classes: int) -> Surrogate:
    """Another head for the same: the median over the networks of the lead of each class over the best other class.

    A majority falls if half of its networks do. Its gradient is that of the network that decides the vote, while the
    mean of the probabilities mostly changes those that are easy to change.

    >>> median_votes(2)(torch.tensor([[0.0, 9.0, 3.0, 0.0, 2.0, 0.0]]))
    tensor([[ 2., -2.]])
    """

    def head(logits: Tensor) -> Tensor:
        median: Tensor = leads(logits.unflatten(1, (-1, classes))).median(1).values
        return median

    return head


def leads(logits: Tensor) -> Tensor:
    """The lead of each class over the best other one: (..., K) logits -> (..., K).

    >>> leads(torch.tensor([0.0, 9.0, 3.0]))
    tensor([-9.,  6., -6.])
    """
    first, second = logits.topk(2, dim=-1).values.split(1, -1)
    return logits - torch.where(logits == first, second, first)
