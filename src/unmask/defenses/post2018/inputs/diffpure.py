"""DiffPure: noise is added to an image, and a diffusion model removes it, with what an attacker added."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unmask.errors import UnmaskError
from unmask.randomness import normal

__all__ = ["DiffPure", "DiffusionPurify", "linear_schedule"]


def linear_schedule(times: int = 1000) -> Tensor:
    """(times + 1,) the share of the image's variance that is left at each time, 1 at time 0.

    That of Ho et al. (NeurIPS 2020), whose variances of the noise added at each time rise from 1e-4 to 0.02.

    >>> [round(share, 6) for share in linear_schedule()[[0, 1, 1000]].tolist()]
    [1.0, 0.9999, 4e-05]
    """
    added = torch.linspace(1e-4, 0.02, times, dtype=torch.float64)
    return torch.cat((torch.ones(1, dtype=torch.float64), (1 - added).cumprod(0))).float()


class DiffusionPurify(nn.Module):
    """Images (B, C, H, W) in [0, 1] diffused to a time and denoised from there by ancestral steps; the same shape.

    Each step keeps only what it starts from, and is computed again in the backward pass, so that the memory that a
    gradient takes is that of one step. All noise is drawn before the steps.

    Args:
        denoiser: (images in [-1, 1] with noise, times (B,)) -> the noise, as :class:`unmask.nets.UNet`.
        until: the time t* that images are diffused to.
        steps: from there to time 0, as equal as whole times allow.
        kept: (T + 1,) the share of the image's variance that is left at each time, as of :func:`linear_schedule`.

    Raises UnmaskError unless 1 <= steps <= until <= T.

    >>> knows = lambda noisy, time: torch.zeros_like(noisy)
    >>> DiffusionPurify(knows, until=10, steps=2)(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """

    kept: Tensor

    def __init__(self, denoiser: nn.Module, until: int, steps: int, kept: Tensor | None = None) -> None:
        super().__init__()
        kept = linear_schedule() if kept is None else kept
        if not 1 <= steps <= until < len(kept):
            raise UnmaskError(f"diffusion needs 1 <= steps <= until <= {len(kept) - 1}, not {steps} and {until}")
        self.denoiser = denoiser
        self.until, self.steps = until, steps
        self.register_buffer("kept", kept, persistent=False)

    @property
    def times(self) -> list[int]:
        """From ``until`` to 0, ``steps`` + 1 of them."""
        return [round(self.until * (self.steps - i) / self.steps) for i in range(self.steps + 1)]

    def forward(self, x: Tensor) -> Tensor:
        share = self.kept[self.until]
        h = share.sqrt() * (2 * x - 1) + (1 - share).sqrt() * normal(x.shape, like=x)
        noises = [normal(x.shape, like=x) for _ in range(self.steps - 1)]
        for time, after in itertools.pairwise(self.times):
            noise = noises.pop() if after else None
            h = checkpoint(self._step, h, time, after, noise, use_reentrant=False, preserve_rng_state=False)
        return (h + 1) / 2

    def _step(self, h: Tensor, time: int, after: int, noise: Tensor | None) -> Tensor:
        """A draw at time ``after``, given the image at ``time``: the mean of the last step."""
        at, then = self.kept[time], self.kept[after]
        told = self.denoiser(h, torch.full((len(h),), time, device=h.device)).to(h.dtype)
        image = (h - (1 - at).sqrt() * told) / at.sqrt()
        added = 1 - at / then
        mean: Tensor = then.sqrt() * added / (1 - at) * image + (at / then).sqrt() * (1 - then) / (1 - at) * h
        return mean if noise is None else mean + (added * (1 - then) / (1 - at)).sqrt() * noise


class DiffPure(nn.Module):
    """A classifier of images that diffusion purifies (Nie et al., ICML 2022). Stochastic and vanishing gradients.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> told = lambda noisy, time: torch.zeros_like(noisy)
    >>> DiffPure(net, DiffusionPurify(told, until=10, steps=2))(torch.rand(5, 1, 2, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(self, classifier: nn.Module, purify: DiffusionPurify) -> None:
        super().__init__()
        self.purify = purify
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.purify(x))
        return logits
