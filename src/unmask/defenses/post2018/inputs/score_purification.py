"""Purification by a score network: an image with noise is moved up the gradient of its density, in a few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unmask.errors import UnmaskError
from unmask.randomness import normal

__all__ = ["Adaptive", "ScorePurification", "ScorePurify", "StepSize"]

Score = Callable[[Tensor], Tensor]
StepSize = Callable[[Score, Tensor, Tensor], Tensor]
"""(the score, images (B, C, H, W), their scores) -> sizes (B,) of a step along these; 0 where purification ends."""


@dataclass(frozen=True)
class Adaptive:
    """The step size of Yoon et al.: ``share`` of the step that would make the score 0, were it linear on the way.

    A step of the size ``probe`` along the score s leads to another score t. A linear score falls to 0 at the size
    probe / (1 - <s, t> / <s, s>). A share of it is taken, ``most`` at the most, as in the authors' code; and 0 where
    that is not above ``stop``, or where the score grows.

    >>> normal_score = lambda x: -x / 4
    >>> x = torch.ones(2, 1, 1, 1)
    >>> Adaptive(share=0.5, most=3.0)(normal_score, x, normal_score(x)).round(decimals=2)
    tensor([2., 2.])
    """

    share: float = 0.05
    probe: float = 1e-3
    most: float = 0.1
    stop: float = 1e-3

    def __call__(self, score: Score, x: Tensor, s: Tensor) -> Tensor:
        other = score(x + self.probe * s)
        fall = ((s - other) * s).flatten(1).sum(1) / s.square().flatten(1).sum(1)
        size = self.share * self.probe / fall.clamp(min=self.share * self.probe / self.most)
        return torch.where((fall >= 0) & (size > self.stop), size, 0)


class ScorePurify(nn.Module):
    """Images (B, C, H, W) in [0, 1] with noise, then steps x <- x + a s(x) + heat * sqrt(2 a) z; the same shape.

    Yoon, Hwang & Lee (ICML 2021) add noise once and choose each size a (:class:`Adaptive`). Hill, Mitchell & Zhu (ICLR
    2021) take steps of one size, and new normal noise z in each of them (``start=0``, ``size`` a number, ``heat=1``).
    Images are clamped to [0, 1] before the first step and after each. Each step keeps only what it starts from, and is
    computed again in the backward pass, so that the memory of a gradient is that of one step. All noise is drawn before
    the first step.

    Args:
        score: images with noise (B, C, H, W) -> their score, up to a factor, of the same shape.
        steps: how many.
        start: standard deviation of the noise that is added to the images.
        size: of a step.
        heat: 1 for Langevin dynamics, 0 for the gradient alone.

    Raises UnmaskError for fewer than one step, and for negative noise.

    >>> purify = ScorePurify(torch.neg, steps=1, start=0.0, size=0.5)
    >>> purify(torch.full((1, 1, 1, 1), 0.8))
    tensor([[[[0.4000]]]])
    """

    def __init__(
        self, score: Score, steps: int = 10, start: float = 0.25, size: StepSize | float = Adaptive(), heat: float = 0.0
    ) -> None:
        super().__init__()
        if steps < 1 or start < 0 or heat < 0:
            raise UnmaskError(f"purification needs steps >= 1 and noise >= 0, not {steps}, {start} and {heat}")
        self.score = score
        self.steps, self.start, self.size, self.heat = steps, start, size, heat

    def forward(self, x: Tensor) -> Tensor:
        h = (x + self.start * normal(x.shape, like=x)).clamp(0, 1) if self.start else x
        noises = [self.heat * normal(x.shape, like=x) if self.heat else None for _ in range(self.steps)]
        for noise in noises:
            h = checkpoint(self._step, h, noise, use_reentrant=False, preserve_rng_state=False)
        return h

    def _step(self, h: Tensor, noise: Tensor | None) -> Tensor:
        with torch.autocast(h.device.type, enabled=False):  # a difference of scores is lost in half precision
            s = self.score(h)
            size = self.size(self.score, h, s) if callable(self.size) else h.new_full((len(h),), self.size)
        wide = size.view(-1, 1, 1, 1)
        step = wide * s if noise is None else wide * s + (2 * wide).sqrt() * noise
        moved: Tensor = (h + step).clamp(0, 1)
        return moved


class ScorePurification(nn.Module):
    """A classifier of images that a score network purifies (Yoon, Hwang & Lee, ICML 2021). Stochastic gradients.

    The logits (B, K) are the mean over ``runs`` purifications of an image, each with noise of its own.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> ScorePurification(net, ScorePurify(torch.neg, steps=2), runs=4)(torch.rand(5, 1, 2, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(self, classifier: nn.Module, purify: ScorePurify, runs: int = 10) -> None:
        super().__init__()
        if runs < 1:
            raise UnmaskError(f"purification needs runs >= 1, not {runs}")
        self.purify = purify
        self.classifier = classifier
        self.runs = runs

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.purify(x.repeat(self.runs, 1, 1, 1)))
        return logits.view(self.runs, len(x), -1).mean(0)
