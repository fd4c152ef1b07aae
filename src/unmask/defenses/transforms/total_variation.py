"""Total variation minimisation: pixels are dropped at random, and the smoothest image through the others is shown."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["MinimiseTotalVariation", "minimise"]

_CHECK = 5  # steps between two looks at what has converged
_VALUES = 1 << 18  # float32 numbers whose intermediate results fit the cache of a core


class MinimiseTotalVariation(nn.Module):
    """Drop pixels at random and fill in by total variation (Guo et al., ICLR 2018): (B, C, H, W) -> (B, C, H, W).

    Each pixel is kept with probability ``keep``, in all channels or in none, by a draw of the image's own.
    Each channel then becomes the u that minimises :func:`minimise`'s objective. Nothing of this is recorded
    for a gradient: approximate the module as a whole, as by ``bpda("transform")`` in ``Preprocessed``.

    Args:
        keep: probability of keeping a pixel, in (0, 1].
        weight: of the total variation beside the squared error, above 0; images are in [0, 1].
        steps: at most.
        tolerance: an image is finished once a step changes it by no more than this in the root mean square.
            At the default the objective ends 1 to 7 % above the minimum on photographs, at 3e-4 within 2 %.
        values: of images worked on at a time, in whole images, one at least: this bounds memory. None is
            what fits the cache of a CPU, and everything at once on other devices.

    >>> MinimiseTotalVariation()(torch.full((2, 3, 8, 8), 0.25)).allclose(torch.tensor(0.25))
    True
    """

    def __init__(
        self,
        keep: float = 0.5,
        weight: float = 0.03,
        steps: int = 100,
        tolerance: float = 1e-3,
        values: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 < keep <= 1:
            raise UnmaskError(f"the probability of keeping a pixel must be above 0 and at most 1, not {keep}")
        _check(weight, steps, tolerance)
        if values is not None and values < 1:
            raise UnmaskError(f"values at a time must be at least 1, not {values}")
        self.keep, self.weight, self.steps, self.tolerance, self.values = keep, weight, steps, tolerance, values

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        kept = uniform((len(x), 1, *x.shape[2:]), like=x[:1].float()) < self.keep
        values = self.values or (_VALUES if x.device.type == "cpu" else x.numel())
        images = max(1, values // x[0].numel()) if len(x) else 1
        parts = zip(x.split(images), kept.split(images), strict=True)
        return torch.cat([minimise(part, mask, self.weight, self.steps, self.tolerance) for part, mask in parts])


@torch.no_grad()
def minimise(x: Tensor, kept: Tensor, weight: float = 0.03, steps: int = 100, tolerance: float = 1e-3) -> Tensor:
    """The u that minimises, image by image, sum_kept (u - x)^2 + weight * sum(|vertical| + |horizontal differences|).

    This is the objective of split Bregman iteration (Goldstein & Osher, SIAM J. Imaging Sciences 2009) as
    Guo et al. use it. Its Bregman variables are iterated here too, but the sweep over the pixels is one step
    of gradient descent for all pixels at once, which makes it the primal-dual hybrid gradient method (Esser,
    Zhang & Chan, SIAM J. Imaging Sciences 2010) with the longer step of Ma et al., *Understanding the
    Convergence of the Preconditioned PDHG Method* (J. Sci. Comput. 2023): every pixel is updated by few
    operations on whole tensors, and the minimum is the same. Finished images leave the batch.

    Args:
        x: images (B, C, H, W); what is not kept is ignored.
        kept: (B, 1, H, W), bool.
        weight: of the total variation.
        steps: at most.
        tolerance: root mean square of a step's change at which an image is finished; looked at every 5 steps.

    >>> row = torch.tensor([[[[0.0, 0.5, 1.0]]]])
    >>> minimise(row, row != 0.5, weight=0.2, tolerance=1e-6).round(decimals=3)[..., ::2]  # each end gives 0.2 / 2
    tensor([[[[0.1000, 0.9000]]]])
    """
    _check(weight, steps, tolerance)
    if kept.shape != (len(x), 1, *x.shape[2:]) or kept.dtype != torch.bool:
        raise UnmaskError(f"kept must be bool {(len(x), 1, *x.shape[2:])}, not {kept.dtype} {tuple(kept.shape)}")
    result, work = torch.empty_like(x), x if x.dtype == torch.float64 else x.float()
    sigma = 25.0  # of the dual variables, for contrasts of images in [0, 1]
    tau = 1 / (6 * sigma)  # |differences|^2 < 8, and tau * sigma * 8 < 4 / 3 is what convergence needs
    pull = kept.to(work.dtype) * (2 * tau / weight)
    shrink = 1 / (1 + pull)
    fixed = torch.where(kept, work, 0) * pull * shrink
    u = _start(work, kept)
    dual = [torch.zeros_like(u.narrow(dim, 0, u.shape[dim] - 1)) for dim in (2, 3)]
    spare = [torch.empty_like(p) for p in dual]
    rows = torch.arange(len(x), device=x.device)
    for step in range(1, steps + 1):
        if looking := step % _CHECK == 0:
            before = u.clone()
        for dim, p, new in zip((2, 3), dual, spare, strict=True):
            torch.sub(*_neighbours(u, dim), out=new)
            torch.add(p, new, alpha=sigma, out=new).clamp_(-1, 1)
            p.sub_(new, alpha=2)  # p - 2 new: the extrapolated dual, negative
        for dim, push in zip((2, 3), dual, strict=True):
            after, here = _neighbours(u, dim)
            after.add_(push, alpha=tau)
            here.sub_(push, alpha=tau)
        torch.addcmul(fixed, u, shrink, out=u)
        dual, spare = spare, dual
        if looking:
            going = (u - before).square().flatten(1).mean(1).sqrt() > tolerance
            if not going.all():
                result[rows[~going]] = u[~going].to(x.dtype)
                rows, u, shrink, fixed = rows[going], u[going], shrink[going], fixed[going]
                dual, spare = [p[going] for p in dual], [p[going] for p in spare]
            if not len(rows):
                break
    result[rows] = u.to(x.dtype)
    return result


def _neighbours(u: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Views of all places but the first, and of all but the last, along a dimension."""
    return u.narrow(dim, 1, u.shape[dim] - 1), u.narrow(dim, 0, u.shape[dim] - 1)


def _start(x: Tensor, kept: Tensor) -> Tensor:
    """The mean of what is kept in the 3x3 pixels around each; where nothing is, that of the whole channel."""
    seen, here = torch.where(kept, x, 0), kept.to(x.dtype)
    overall = seen.sum((2, 3), keepdim=True) / here.sum((2, 3), keepdim=True).clamp_min(1)
    around = F.avg_pool2d(here, 3, 1, 1)
    return torch.where(around > 0, F.avg_pool2d(seen, 3, 1, 1) / around.clamp_min(0.1), overall)


def _check(weight: float, steps: int, tolerance: float) -> None:
    if weight <= 0 or steps < 1 or tolerance < 0:
        wrong = f"weight={weight}, steps={steps}, tolerance={tolerance}"
        raise UnmaskError(f"total variation needs weight > 0, steps >= 1 and tolerance >= 0, not {wrong}")
