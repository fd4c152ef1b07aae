"""Ensemble diversity: members that disagree on the classes that are not the right one (ADP)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["diversity_loss", "log_diversity"]

_OFFSET = 1e-6  # on the diagonal, so that equal members have a determinant above 0


def log_diversity(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The logarithm of the squared volume of the members' predictions of the wrong classes: (B, M, K), (B,) -> (B,).

    The right class is left out, each member's vector of K - 1 probabilities is scaled to length 1, and the volume is
    that of the parallelotope of the M vectors: 1 where they are orthogonal, 0 where two are equal (Pang et al., ICML
    2019, equation 2).

    >>> apart = torch.tensor([[[0.6, 0.4, 0.0], [0.7, 0.0, 0.3]]])
    >>> log_diversity(apart, torch.tensor([0])).exp()
    tensor([1.0000])
    """
    batch, members, classes = probabilities.shape
    wrong = F.one_hot(labels, classes) == 0
    vectors = probabilities[wrong[:, None].expand_as(probabilities)].view(batch, members, classes - 1)
    vectors = F.normalize(vectors, dim=2, eps=1e-8)
    with torch.autocast(vectors.device.type, enabled=False):  # of nearly equal members it would be below 0 in bfloat16
        gram = vectors.double() @ vectors.double().transpose(1, 2)
        volume = (gram + _OFFSET * torch.eye(members, dtype=gram.dtype, device=gram.device)).logdet()
    return volume.to(probabilities.dtype)


def diversity_loss(logits: Tensor, labels: Tensor, entropy: float = 2.0, diversity: float = 0.5) -> Tensor:
    """What an ensemble minimises (B,), of its members' logits (B, M, K): adaptive diversity promoting.

    The sum of the members' cross entropies, less ``entropy`` times the Shannon entropy of their mean prediction, less
    ``diversity`` times :func:`log_diversity`; the weights 2 and 0.5 are those of the authors.

    >>> certain = torch.tensor([[[9.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    >>> diversity_loss(certain, torch.tensor([0]), entropy=0, diversity=0).item() < 0.01
    True
    """
    probabilities = logits.softmax(2)
    members = logits.shape[1]
    repeated = labels[:, None].expand(-1, members).flatten()
    fit = F.cross_entropy(logits.flatten(0, 1), repeated, reduction="none").view(-1, members).sum(1)
    mean = probabilities.mean(1)
    spread = -(mean * mean.clamp_min(1e-20).log()).sum(1)
    return fit - entropy * spread - diversity * log_diversity(probabilities, labels)
