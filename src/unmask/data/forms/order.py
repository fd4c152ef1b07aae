"""The order in which examples are taken: that of the data, unless it is by class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["order_of"]


def order_of(labels: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The positions (N,) of examples in the order in which they are taken, and what to say of it.

    Data in which each class is one block of rows, as folders by class are, would begin with examples of one class
    alone. They are shuffled once by ``numpy.random.RandomState(0).permutation(N)``, a sequence that NumPy has frozen,
    so that the first n are a random sample. Other data stay as they are.

    >>> order_of(torch.tensor([0, 0, 1, 1]))
    (tensor([2, 3, 1, 0]), ('shuffled',))
    >>> order_of(torch.tensor([0, 1, 0, 1]))
    (tensor([0, 1, 2, 3]), ())
    """
    blocks = 1 + int((labels[1:] != labels[:-1]).sum())
    if 1 < blocks == len(labels.unique()) < len(labels):
        return torch.from_numpy(np.random.RandomState(0).permutation(len(labels))), ("shuffled",)
    return torch.arange(len(labels)), ()
