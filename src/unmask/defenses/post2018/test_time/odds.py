"""The odds are odd: an image is refused where noise changes its log-odds more than those of clean images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import normal
from unmask.types import Output

__all__ = ["OddsTest", "WithNoise"]


class WithNoise(nn.Module):
    """Copies of images (B, C, H, W) in [0, 1] with Gaussian noise, clipped: (B * samples, C, H, W).

    The copies of an image follow one another.

    >>> WithNoise(4, 0.1)(torch.rand(3, 1, 2, 2)).shape
    torch.Size([12, 1, 2, 2])
    """

    def __init__(self, samples: int, size: float) -> None:
        super().__init__()
        if samples < 1:
            raise UnmaskError(f"a mean needs at least 1 sample, not {samples}")
        self.samples, self.size = samples, size

    def forward(self, x: Tensor) -> Tensor:
        noise = normal((len(x), self.samples, *x.shape[1:]), like=x.detach().float())
        return (x[:, None] + self.size * noise.to(x.dtype)).clamp(0, 1).flatten(0, 1)


class OddsTest(nn.Module):
    """A classifier and a statistical test for adversarial images (Roth, Kilcher & Hofmann, ICML 2019).

    With y the classifier's answer, f_z - f_y are the log-odds of class z. The mean over ``samples`` draws of noise of
    their change, less ``mean[y, z]`` and divided by ``deviation[y, z]`` of clean images of class y, is a score for
    each z; the image is refused where the largest of them exceeds ``threshold``. Answers logits (B, K) and the margin
    by which an image is refused (B,). Stochastic; the gradient is not masked.

    Args:
        classifier: (B, C, H, W) -> (B, K).
        classes: K.
        samples: draws of the noise for each image.
        size: standard deviation of the noise.

    >>> test = OddsTest(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), classes=3)
    >>> test(torch.rand(5, 1, 2, 2)).reject.shape
    torch.Size([5])
    """

    mean: Tensor
    deviation: Tensor
    threshold: Tensor

    def __init__(self, classifier: nn.Module, classes: int = 10, samples: int = 8, size: float = 30 / 255) -> None:
        super().__init__()
        self.classifier = classifier
        self.noise = WithNoise(samples, size)
        self.register_buffer("mean", torch.zeros(classes, classes))
        self.register_buffer("deviation", torch.ones(classes, classes))
        self.register_buffer("threshold", torch.zeros(()))

    def changes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K), and the mean change under noise (B, K) of each class's log-odds against the answer's."""
        logits = self.classifier(x).float()
        noisy = self.classifier(self.noise(x)).float().unflatten(0, (len(x), -1)).mean(1)
        change = noisy - logits
        return logits, change - change.gather(1, logits.argmax(1, keepdim=True))

    def forward(self, x: Tensor) -> Output:
        logits, change = self.changes(x)
        answer = logits.argmax(1)
        scores = (change - self.mean[answer]) / self.deviation[answer]
        largest = scores.scatter(1, answer[:, None], -math.inf).amax(1)
        return Output(logits, largest - self.threshold)
