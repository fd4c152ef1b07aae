"""An ensemble over random crops: each forward pass classifies other windows of the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["CropEnsemble"]


class CropEnsemble(nn.Module):
    """The mean prediction over random crops (Guo et al., ICLR 2018). Stochastic gradients, otherwise exact.

    (B, C, H, W) -> (B, K): the logarithm of the mean over the crops of the classifier's probabilities. Its
    softmax is that mean, so that the predicted class, cross entropy and margins are those of the ensemble.

    Each image has crops of its own, square and uniform over all places where a crop fits, in whole pixels,
    so that a crop is a window of the image and nothing is resampled. (Athalye et al., ICML 2018, place the
    windows between the pixels and interpolate.)

    Args:
        classifier: (n, C, size, size) -> logits (n, K). Draws of its own are not repeated in the backward
            pass where there are more crops than ``at_once``.
        size: of the crops, in pixels.
        crops: per image.
        at_once: crops in one batch of the classifier. Of what a backward pass needs, only the crops' places
            are kept in between where there are more: each batch is then computed once more.

    Raises UnmaskError for images smaller than a crop.

    >>> ensemble = CropEnsemble(nn.Flatten(), size=2, crops=5)
    >>> ensemble(torch.zeros(3, 1, 4, 4)).exp()[0]
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    def __init__(self, classifier: nn.Module, size: int = 90, crops: int = 30, at_once: int = 64) -> None:
        super().__init__()
        if min(size, crops, at_once) < 1:
            raise UnmaskError(f"crops need size, crops and at_once of 1 at least, not {size}, {crops} and {at_once}")
        self.classifier = classifier
        self.size, self.crops, self.at_once = size, crops, at_once

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if min(height, width) < self.size:
            raise UnmaskError(f"crops of {self.size}x{self.size} do not fit into images of {height}x{width}")
        places = uniform((len(x), self.crops, 2), like=x[:1].float()).flatten(0, 1)
        top, left = ((places[:, i] * (side - self.size + 1)).long() for i, side in enumerate((height, width)))
        image = torch.arange(len(x), device=x.device).repeat_interleave(self.crops)
        parts = list(zip(*(index.split(self.at_once) for index in (image, top, left)), strict=True))
        if len(parts) > 1 and torch.is_grad_enabled():
            scores = [checkpoint(self._classify, x, *part, use_reentrant=False) for part in parts]
        else:
            scores = [self._classify(x, *part) for part in parts]
        log_sum = torch.cat(scores).view(len(x), self.crops, -1).logsumexp(1)
        return log_sum - torch.tensor(self.crops, dtype=log_sum.dtype, device=log_sum.device).log()

    def _classify(self, x: Tensor, image: Tensor, top: Tensor, left: Tensor) -> Tensor:
        """Log probabilities (n, K) of windows."""
        along = torch.arange(self.size, device=x.device)
        rows, columns = top[:, None] + along, left[:, None] + along
        windows = x.permute(0, 2, 3, 1)[image[:, None, None], rows[:, :, None], columns[:, None, :]]
        logits: Tensor = self.classifier(windows.permute(0, 3, 1, 2))
        return logits.log_softmax(1)
