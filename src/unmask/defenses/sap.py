"""Stochastic activation pruning: every forward pass keeps another sample of each layer's units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["SAP", "KeepEach", "SampleWithReplacement"]


class SampleWithReplacement(nn.Module):
    """Keep the units that a multinomial sample hits: (B, ...) -> (B, ...), as Dhillon et al. define it (ICLR 2018).

    With p_j = |h_j| / sum |h|, ``floor(fraction * n)`` of an image's n units are drawn with replacement;
    unit j is kept if it is drawn at least once, and divided by the probability of that,
    1 - (1 - p_j)^draws. Mask and scale count as constants in the backward pass.

    >>> SampleWithReplacement()(torch.tensor([[4.0, 0.0]])).tolist()
    [[4.0, 0.0]]
    """

    def __init__(self, fraction: float = 1.0) -> None:
        super().__init__()
        if fraction <= 0:
            raise UnmaskError(f"a sample needs a fraction above 0, not {fraction}")
        self.fraction = fraction

    def forward(self, h: Tensor) -> Tensor:
        draws = int(self.fraction * h[0].numel())
        with torch.no_grad():
            p = _shares(h)
            reach = p.double().cumsum(1)
            gaps = (1 - uniform((len(h), draws + 1), like=reach)).log().neg().cumsum(1)
            points = gaps[:, :-1] / gaps[:, -1:] * reach[:, -1:]  # uniform and in order, which is quicker to look up
            hit = torch.searchsorted(reach, points, right=True)
            kept = torch.zeros_like(p).scatter_(1, hit.clamp_max(p.shape[1] - 1), 1.0)
            chance = -torch.expm1(draws * torch.log1p(-p))
            scale = torch.where(chance > 0, kept / chance, 0.0)
        return h * scale.view_as(h)


class KeepEach(nn.Module):
    """Keep each unit by a coin of its own: the variant that Athalye et al. attacked (ICML 2018).

    Unit j stays with probability 1 - exp(-factor * n * p_j) and is divided by it, plus 1e-8. With large
    ``factor`` hardly anything is pruned. It prunes less than the authors' defense does, and elsewhere.

    >>> KeepEach(factor=40)(torch.tensor([[4.0, 0.0]]))
    tensor([[4., 0.]])
    """

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, h: Tensor) -> Tensor:
        with torch.no_grad():
            p = _shares(h)
            keep = -torch.expm1(-self.factor * p.shape[1] * p)
            scale = (uniform(p.shape, like=p) < keep) / (keep + 1e-8)
        return h * scale.view_as(h)


def _shares(h: Tensor) -> Tensor:
    """(B, n) share of each unit in the sum of an image's magnitudes; 0 where all are 0."""
    size = h.detach().flatten(1).abs().float()
    return size / size.sum(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)


class SAP(nn.Module):
    """A trained classifier whose layers are pruned at random (Dhillon et al., ICLR 2018). Stochastic gradients.

    Args:
        classifier: (B, C, H, W) -> (B, K), trained without pruning.
        prune: what is done to a layer's output.
        after: the type of those layers; the authors prune after each activation.

    ``prune`` is one part of the model, called once a layer: ``bpda("prune")`` approximates them all.

    >>> SAP(nn.Sequential(nn.Flatten(), nn.ReLU()))(torch.rand(2, 1, 2, 2)).shape
    torch.Size([2, 4])
    """

    def __init__(self, classifier: nn.Module, prune: nn.Module | None = None, after: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.prune = prune or SampleWithReplacement()
        self.classifier = classifier
        for layer in classifier.modules():
            if isinstance(layer, after):
                layer.register_forward_hook(self._pruned)  # a bound method, which follows copies of the model

    def _pruned(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        pruned: Tensor = self.prune(output)
        return pruned

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(x)
        return logits
