"""Images as a network of another library wants them: of its size, normalised, in batches of its number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.defenses.preprocessed import Preprocessed
from unmask.evaluation.models.sources.loading import Loaded, Request, adapted
from unmask.models.forms import check_moments

__all__ = ["Batches", "Fitted", "fitted"]


class Fitted(nn.Module):
    """Images in [0, 1] as a network wants them: resized to ``size`` (bilinear), less ``mean``, over ``std``.

    Args:
        size: (H', W'); None for that of the images.
        mean: of each channel, or one for all.
        std: of each channel, or one for all.

    (B, C, H, W) -> (B, C, H', W').

    >>> Fitted((1, 1), [0.5], [0.25])(torch.tensor([[[[0.25, 0.75], [1.0, 1.0]]]]))
    tensor([[[[1.]]]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: Sequence[int] | None, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.size = None if size is None else tuple(size)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.size is not None and x.shape[2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        return (x - self.mean) / self.std


class Batches(nn.Module):
    """A network that takes ``size`` images at a time and no other number: the last part is filled up.

    >>> Batches(nn.Flatten(), 2)(torch.ones(3, 1, 2, 2)).shape
    torch.Size([3, 4])
    """

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net = net
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.cat([x, x[-1:].expand(-len(x) % self.size, *x.shape[1:])]).split(self.size)
        return torch.cat([self.net(part) for part in parts])[: len(x)]


def fitted(
    net: nn.Module,
    request: Request,
    size: Sequence[int] | None,
    mean: Sequence[float],
    std: Sequence[float],
    whose: str,
) -> Loaded:
    """The network behind :class:`Fitted`, in evaluation mode; ``--mean`` and ``--std`` replace its own moments.

    Args:
        size: (H', W') that it was trained on; None for that of the images.
        mean: of its own normalisation.
        std: of its own normalisation.
        whose: where size and moments come from, in words.

    Raises UnmaskError for ``--mean`` of another number of channels than the images.
    """
    form = request.form
    check_moments(form.mean, request.images.shape[1])
    notes = []
    if size is not None and tuple(size) != tuple(request.images.shape[2:]):
        given, wanted = (" x ".join(map(str, sides)) for sides in (request.images.shape[2:], size))
        notes.append(adapted(f"images of {given} are resized to {wanted}, {whose}", "give data of that size"))
    if form.checkpoint and not form.mean:
        moments = f"mean {_listed(mean)} and std {_listed(std)}"
        notes.append(adapted(f"images are normalised by {moments}, {whose}", "--mean and --std, if they are others"))
    moments_used = (form.mean, form.std) if form.mean else (mean, std)
    return Loaded(Preprocessed(Fitted(size, *moments_used), net).eval(), notes, normalised=True)


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
