"""ME-Net: random pixels are dropped, and the image is estimated from the others as a matrix of low rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["EstimateMatrix", "MaskPixels", "MatrixEstimation"]


class MaskPixels(nn.Module):
    """Keeps each value with a probability and sets the others to the middle of the range: (B, C, H, W), the same.

    Values are moved to [-1, 1], where 0 stands for what is not observed, and divided by the share that is, so that
    the mean over draws is the image. In training each image has a probability of its own, uniform in [low, high]; in
    evaluation it is (low + high) / 2, as in the authors' code. The output is 2 x - 1, masked and scaled.

    >>> MaskPixels(1.0, 1.0)(torch.tensor([[[[0.5, 1.0]]]]))
    tensor([[[[0., 1.]]]])
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        if not 0 < low <= high <= 1:
            raise UnmaskError(f"pixels are kept with probabilities 0 < low <= high <= 1, not {low} and {high}")
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        u = uniform((len(x), 1 + x[0].numel()), like=x.detach().float())
        keep = self.low + (self.high - self.low) * (u[:, :1] if self.training else 0.5)
        kept = (u[:, 1:] < keep).view_as(x)
        share = kept.flatten(1).float().mean(1).clamp_min(1 / x[0].numel()).view(-1, 1, 1, 1)
        return (2 * x - 1) * kept / share


class EstimateMatrix(nn.Module):
    """Images in [-1, 1] without their smallest singular values, in [0, 1]: (B, C, H, W), the same.

    Universal singular value thresholding (Chatterjee, 2015), as the authors have it: the channels of an image stand
    side by side as one matrix (H, C W), of which the ``rank`` * H largest singular values stay. The result is clipped
    to [-1, 1] and moved to [0, 1]. It has no gradient: the authors compute it in numpy.

    >>> EstimateMatrix(1.0)(torch.tensor([[[[0.0, 1.0], [-1.0, 0.5]]]])).round(decimals=2)
    tensor([[[[0.5000, 1.0000],
              [0.0000, 0.7500]]]])
    """

    def __init__(self, rank: float) -> None:
        super().__init__()
        if not 0 < rank <= 1:
            raise UnmaskError(f"the share of singular values that stay is above 0 and at most 1, not {rank}")
        self.rank = rank

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.projected(x)

    def projected(self, x: Tensor) -> Tensor:
        """The same, with the gradient of a projection whose directions are constant: a surrogate for :func:`bpda`."""
        channels, rows = x.shape[1:3]
        with torch.autocast(x.device.type, enabled=False):
            matrix = x.float().transpose(1, 2).flatten(2)  # (B, H, C W)
            with torch.no_grad():
                vectors = torch.linalg.eigh(matrix @ matrix.mT).eigenvectors  # their values ascend
                leading = vectors[:, :, rows - int(self.rank * rows) :]
            image = (leading @ (leading.mT @ matrix)).unflatten(2, (channels, -1)).transpose(1, 2)
            moved: Tensor = ((image.clamp(-1, 1) + 1) / 2).to(x.dtype)
            return moved


class MatrixEstimation(nn.Module):
    """A classifier of estimated images (ME-Net: Yang et al., ICML 2019). Shattered and stochastic gradients.

    The parts are ``mask``, ``estimate`` and ``classifier``.

    Args:
        classifier: (B, C, H, W) -> logits (B, K), trained behind the other parts.
        low: smallest probability with which a value is kept in training.
        high: largest.
        rank: share of the singular values that stay.

    >>> MatrixEstimation(nn.Flatten(), 0.4, 0.6)(torch.rand(5, 1, 4, 4)).shape
    torch.Size([5, 16])
    """

    def __init__(self, classifier: nn.Module, low: float, high: float, rank: float = 0.8) -> None:
        super().__init__()
        self.mask = MaskPixels(low, high)
        self.estimate = EstimateMatrix(rank)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.estimate(self.mask(x)))
        return logits
