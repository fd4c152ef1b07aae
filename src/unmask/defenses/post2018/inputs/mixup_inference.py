"""Mixup inference: an image is classified by its mixtures with other images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["MixWithOthers", "MixupInference", "balanced_pool"]


def balanced_pool(images: Tensor, labels: Tensor, size: int, classes: int) -> Tensor:
    """The first ``size`` images of each class, class after class: (N, C, H, W), (N,) -> (classes * size, C, H, W).

    Raises UnmaskError where a class has fewer.

    >>> balanced_pool(torch.arange(4.0).view(4, 1, 1, 1), torch.tensor([1, 0, 0, 1]), 1, 2).flatten()
    tensor([1., 0.])
    """
    found = [images[labels == k][:size] for k in range(classes)]
    if min(map(len, found)) < size:
        raise UnmaskError(f"the pool needs {size} images of each class, there are {[len(part) for part in found]}")
    return torch.cat(found)


class MixWithOthers(nn.Module):
    """Mixtures of images (B, C, H, W) with random ones of other classes than theirs (B,): (B * samples, C, H, W).

    A mixture is ``share`` times the image plus 1 - ``share`` times an image of ``pool`` (N, C, H, W), which has as many
    of each class, class after class. Its class is uniform over those that are not the image's. The mixtures of an
    image follow one another.

    >>> mix = MixWithOthers(torch.arange(3.0).view(3, 1, 1, 1), classes=3, samples=20, share=0.5)
    >>> set(mix(torch.full((1, 1, 1, 1), 10.0), torch.tensor([1])).flatten().tolist())
    {5.0, 6.0}
    """

    pool: Tensor

    def __init__(self, pool: Tensor, classes: int, samples: int, share: float) -> None:
        super().__init__()
        if samples < 1 or not 0 < share <= 1:
            raise UnmaskError(f"mixtures need samples >= 1 and a share in (0, 1], not {samples} and {share}")
        self.register_buffer("pool", pool, persistent=False)
        self.classes, self.samples, self.share = classes, samples, share

    def forward(self, x: Tensor, answer: Tensor) -> Tensor:
        size = len(self.pool) // self.classes
        u = uniform((len(x), 2, self.samples), like=x.detach().float())
        other = (answer[:, None] + 1 + (u[:, 0] * (self.classes - 1)).long()) % self.classes
        chosen = self.pool[other * size + (u[:, 1] * size).long()]
        return (self.share * x[:, None] + (1 - self.share) * chosen).flatten(0, 1)


class MixupInference(nn.Module):
    """A classifier trained on mixtures, applied to mixtures (MI-OL: Pang, Xu & Zhu, ICLR 2020). Stochastic gradients.

    The classifier's answer to the image as it came decides which classes it is mixed with: all but that one. The
    output (B, K) is the logarithm of the mean of the mixtures' probabilities.

    Args:
        classifier: (B, C, H, W) -> logits (B, K).
        pool: images (N, C, H, W) to mix with, as of :func:`balanced_pool`; not stored with the weights.
        classes: K.
        samples: mixtures of each image.
        share: lambda, what a mixture has of the image.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> MixupInference(net, torch.rand(9, 1, 2, 2), classes=3)(torch.rand(6, 1, 2, 2)).shape
    torch.Size([6, 3])
    """

    def __init__(
        self, classifier: nn.Module, pool: Tensor, classes: int = 10, samples: int = 15, share: float = 0.5
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.mix = MixWithOthers(pool, classes, samples, share)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            answer = self.classifier(x).argmax(1)
        scores = self.classifier(self.mix(x, answer)).float().log_softmax(1).unflatten(0, (len(x), -1))
        logits: Tensor = scores.logsumexp(1) - math.log(self.mix.samples)
        return logits
