"""Random self-ensemble: noise in front of every convolution, and the mean prediction of several draws of it."""

from __future__ import annotations

import math

from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import normal

__all__ = ["AddNoise", "SelfEnsemble", "noisy"]


class AddNoise(nn.Module):
    """Adds normal noise of standard deviation ``size``, in training and in evaluation: (B, ...) -> (B, ...).

    >>> import torch
    >>> bool((AddNoise(0.1)(torch.zeros(1, 1000)).std() - 0.1).abs() < 0.02)
    True
    """

    def __init__(self, size: float) -> None:
        super().__init__()
        if size < 0:
            raise UnmaskError(f"noise has a standard deviation of at least 0, not {size}")
        self.size = size

    def forward(self, h: Tensor) -> Tensor:
        return h + self.size * normal(h.shape, like=h) if self.size else h


def noisy(net: nn.Module, first: float = 0.2, inner: float = 0.1) -> nn.Module:
    """``net`` with :class:`AddNoise` in front of each convolution, changed in place and given back.

    The first convolution, as ``net.modules()`` lists them, has noise of the size ``first``, all others ``inner``; the
    defaults are those of Liu et al. (ECCV 2018).

    >>> [type(layer).__name__ for layer in noisy(nn.Sequential(nn.Conv2d(3, 4, 3)))[0]]
    ['AddNoise', 'Conv2d']
    """
    size = first
    for parent in list(net.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Conv2d):
                setattr(parent, name, nn.Sequential(AddNoise(size), layer))
                size = inner
    return net


class SelfEnsemble(nn.Module):
    """The mean prediction of a random network over several draws (RSE: Liu et al., ECCV 2018). Stochastic gradients.

    (B, C, H, W) -> (B, K): in evaluation the logarithm of the mean of the probabilities, in training the logits of a
    single draw, as the authors train.

    Args:
        classifier: a network that draws, as of :func:`noisy`: images to logits (B, K).
        members: draws for a prediction, in one pass of ``members`` copies of each image.

    Raises UnmaskError for no members.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), AddNoise(1.0))
    >>> scores = SelfEnsemble(net, members=4000).eval()(torch.zeros(1, 2, 1, 1)).exp()
    >>> bool((scores - 0.5).abs().max() < 0.05)
    True
    """

    def __init__(self, classifier: nn.Module, members: int = 10) -> None:
        super().__init__()
        if members < 1:
            raise UnmaskError(f"an ensemble needs at least one member, not {members}")
        self.classifier = classifier
        self.members = members

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            logits: Tensor = self.classifier(x)
            return logits
        copies = self.classifier(x.repeat(self.members, 1, 1, 1)).log_softmax(1)
        mean: Tensor = copies.unflatten(0, (self.members, len(x))).logsumexp(0) - math.log(self.members)
        return mean
