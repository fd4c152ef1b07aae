"""A classifier behind an input transformation."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Preprocessed"]


class Preprocessed(nn.Module):
    """A classifier of transformed images: ``classifier(transform(x))``.

    Args:
        transform: (B, C, H, W) in [0, 1] -> (B, C, H', W').
        classifier: (B, C, H', W') -> logits (B, K).

    Both are parts of the model by these names, so that ``bpda("transform")`` is the attack of Athalye et al.
    (ICML 2018) on any transformation whose output resembles its input, and ``bpda("transform.quantise")``
    one that approximates a part of it. Transformations in a row are an ``nn.Sequential``.

    >>> import torch
    >>> Preprocessed(nn.AvgPool2d(2), nn.Flatten())(torch.ones(3, 1, 4, 4)).shape
    torch.Size([3, 4])
    """

    def __init__(self, transform: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.transform(x))
        return logits
