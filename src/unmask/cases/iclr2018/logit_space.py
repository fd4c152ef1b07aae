"""LS-PGA: the adversary that thermometer-encoded networks are trained against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmask.defenses.thermometer import bin_of
from unmask.gradients.bpda import bypass
from unmask.randomness import normal
from unmask.threats import Linf
from unmask.types import as_output

__all__ = ["LogitSpace"]


@dataclass(frozen=True)
class LogitSpace:
    """Logit-space projected gradient ascent on the bins of a thermometer code (Buckman et al., ICLR 2018).

    Each pixel has a logit for every bin that its ball reaches. Their softmax is a mixture of codes, on
    which the classifier's loss is ascended by the sign of the gradient; the temperature falls with the
    steps, and the largest logit chooses the bin in the end.

    Args:
        threat: the ball.
        levels: bins per pixel and channel.
        steps: gradients.
        size: of a step in logits.
        cooling: what the temperature, 1 at first, is divided by after each step.
        part: the model's part that encodes.
    """

    threat: Linf
    levels: int = 16
    steps: int = 7
    size: float = 1.0
    cooling: float = 1.2
    part: str = "encode"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
        """Images (B, C, H, W) in the ball, each pixel at the place of its bin that is nearest to its own value."""
        below, above = (x - self.threat.eps).clamp_min(0), (x + self.threat.eps).clamp_max(1)
        first, last = (bin_of(edge, self.levels).long().unsqueeze(2) for edge in (below, above))
        width = int((last - first).max()) + 1
        bins = first + torch.arange(width, device=x.device).view(1, 1, -1, 1, 1)  # (B, C, width, H, W)
        closed = torch.where(bins <= last, 0.0, -torch.inf)
        lowest = torch.arange(self.levels + width, device=x.device).view(1, 1, -1, 1, 1) <= first
        certain = lowest.to(x.dtype)  # the code of the lowest bin, and room for bins beyond the last level
        classify = bypass(self.part)(model)
        u = normal(closed.shape, like=closed)
        for step in range(self.steps):
            u.requires_grad_()
            mixture = (u * self.cooling**step + closed).softmax(2)
            at_least = mixture.flip(2).cumsum(2).flip(2)[:, :, 1:]
            code = certain.scatter(2, bins[:, :, 1:], at_least)[:, :, : self.levels].flatten(1, 2)
            loss = torch.nn.functional.cross_entropy(as_output(classify(code)).logits.float(), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, u)
            u = u.detach() + self.size * gradient.sign()
        chosen = bins.gather(2, (u + closed).argmax(2, keepdim=True)).squeeze(2)
        edges = torch.arange(self.levels + 1, device=x.device) / (0.99999 * self.levels)
        inside = 1e-4 / self.levels  # of the edges, where rounding could change the bin
        return x.clamp(edges[chosen] + inside, edges[chosen + 1] - inside).clamp(below, above)
