"""Multi-resolution self-ensemble: layers of one network vote by CrossMax on noisy copies at several resolutions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["CrossMax", "MultiResolution", "ResolutionStack"]


class ResolutionStack(nn.Module):
    """Random copies of images (B, C, H, W) in [0, 1] at several resolutions, stacked: (B, C * resolutions, H, W).

    Each copy has its contrast and colour changed and is shifted by up to ``jitter`` pixels in each direction, around
    the border; it is resized to the resolution, and back, with uniform noise in [0, ``noise``) added after each; then
    it is clipped. Resizing is bicubic. Each image and each resolution has draws of its own.

    >>> ResolutionStack((8, 4))(torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 6, 8, 8])
    """

    def __init__(self, resolutions: tuple[int, ...] = (32, 16, 8, 4), jitter: int = 3, noise: float = 0.2) -> None:
        super().__init__()
        if not resolutions or min(resolutions) < 1:
            raise UnmaskError(f"a stack needs resolutions of at least one pixel, not {resolutions}")
        self.resolutions, self.jitter, self.noise = resolutions, jitter, noise

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._copy(x, resolution) for resolution in self.resolutions], 1)

    def _copy(self, x: Tensor, resolution: int) -> Tensor:
        u = uniform((len(x), 4), like=x.detach().float())[:, :, None, None, None]
        contrast, colour = 0.7 + 0.8 * u[:, 0], 0.5 + 0.5 * u[:, 1]
        grey = x.mean((1, 2, 3), keepdim=True)
        h = (grey + contrast * (x - grey)).clamp(0, 1)
        h = self._rolled(h, (u[:, 2:, 0, 0, 0] * (2 * self.jitter + 1)).long() - self.jitter)
        h = colour * h + (1 - colour) * h.mean(1, keepdim=True)
        for side in ((resolution, resolution), x.shape[2:]):
            h = F.interpolate(h, tuple(side), mode="bicubic", align_corners=False)
            h = h + self.noise * uniform(h.shape, like=h.detach().float()).to(h.dtype)
        return h.clamp(0, 1)

    def _rolled(self, x: Tensor, by: Tensor) -> Tensor:
        """Each image moved down and to the right by its two numbers (B, 2), around the border."""
        rows, columns = ((torch.arange(x.shape[d], device=x.device) - by[:, d - 2, None]) % x.shape[d] for d in (2, 3))
        image, channel = (torch.arange(x.shape[d], device=x.device) for d in (0, 1))
        return x[image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


class CrossMax(nn.Module):
    """Logits (B, members, K) -> (B, K): of each class the ``rank``-th largest, once no member and no class leads.

    From a member's logits its largest is subtracted, then from a class's logits that of the class.

    >>> CrossMax(2)(torch.tensor([[[9.0, 0.0], [1.0, 2.0], [3.0, 1.0]]]))
    tensor([[ 0., -2.]])
    """

    def __init__(self, rank: int = 3) -> None:
        super().__init__()
        self.rank = rank

    def forward(self, logits: Tensor) -> Tensor:
        logits = logits - logits.amax(2, keepdim=True)
        logits = logits - logits.amax(1, keepdim=True)
        return logits.topk(self.rank, dim=1).values[:, -1]


class MultiResolution(nn.Module):
    """A self-ensemble (Fort & Lakshminarayanan, 2024) over the layers of a network. Stochastic and shattered gradients.

    Args:
        stack: images (B, C, H, W) to the network's input.
        classifier: input -> logits (B, K).
        layers: paths of those of its parts whose outputs are classified too, by batch norm and a linear layer.
        sizes: how many numbers each of them gives.
        classes: K.
        rank: as of :class:`CrossMax`.

    In training the linear layers' gradients do not reach the network.

    >>> net = nn.Sequential(nn.Conv2d(6, 2, 3, 4), nn.Flatten(), nn.Linear(8, 3))
    >>> model = MultiResolution(ResolutionStack((8, 4)), net, ("0", "1"), (8, 8), classes=3).eval()
    >>> model(torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        stack: nn.Module,
        classifier: nn.Module,
        layers: tuple[str, ...],
        sizes: tuple[int, ...],
        classes: int = 10,
        rank: int = 3,
    ) -> None:
        super().__init__()
        if rank > len(layers) + 1:
            raise UnmaskError(f"no {rank}-th largest of {len(layers) + 1} members", "name more layers")
        self.stack, self.classifier, self.layers = stack, classifier, layers
        self.heads = nn.ModuleList(nn.Sequential(nn.BatchNorm1d(n), nn.Linear(n, classes)) for n in sizes)
        self.vote = CrossMax(rank)

    def logits(self, x: Tensor) -> Tensor:
        """Of each member: (B, layers + 1, K), the last one the network itself."""
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return lambda _, args, output: seen.update({name: output.flatten(1)})

        hooks = [self.classifier.get_submodule(name).register_forward_hook(keep(name)) for name in self.layers]
        try:
            last = self.classifier(self.stack(x))
        finally:
            for hook in hooks:
                hook.remove()
        inputs = [seen[name].detach() if self.training else seen[name] for name in self.layers]
        return torch.stack([*(head(h) for head, h in zip(self.heads, inputs, strict=True)), last], 1)

    def forward(self, x: Tensor) -> Tensor:
        votes: Tensor = self.vote(self.logits(x))
        return votes
