"""The position of an image among the cells of a quantiser: coordinates that feature distillation passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unmask.defenses.transforms.blocks import dct, idct, pad, per_frequency
from unmask.gradients.bpda import substitute
from unmask.randomness import uniform
from unmask.threats import Threat

__all__ = ["Codes"]

_INSIDE = 1e-3  # of a step: how far inside its cell a frequency is put


@dataclass(frozen=True)
class Codes:
    """Reparameterization of images by the codes that a quantiser of frequencies gives them.

    Coordinates (B, 2, C, H, W) are frequencies in steps of the quantiser, those searched and those of the
    image itself. They represent the image nearest to the first one, frequency by frequency, that has the
    searched codes: a frequency whose code stays does not move, another moves just into its cell. So a
    change is paid for only where the quantiser lets it through. Gradients pass as if frequencies moved freely.

    Args:
        table: (8, 8) steps of the frequencies, in levels of 255.

    Sides of images are multiples of 8.

    >>> space = Codes(torch.full((8, 8), 30.0))
    >>> x = torch.rand(2, 3, 16, 16)
    >>> space.decode(space.start(x, None, at_random=False)).allclose(x, atol=1e-5)
    True
    """

    bounded: ClassVar[bool] = False
    table: Tensor

    def start(self, x: Tensor, threat: Threat | None, *, at_random: bool) -> Tensor:
        own = self._in_steps(x)
        away = uniform(own.shape, like=own) - 0.5 if at_random else torch.zeros_like(own)
        return torch.stack((own + away, own), 1)

    def decode(self, z: Tensor) -> Tensor:
        wanted, own = z[:, 0], z[:, 1].detach()
        cell = wanted.detach().round()
        near = own.clamp(cell - 0.5 + _INSIDE, cell + 0.5 - _INSIDE)
        true = torch.where(own.round() == cell, own, near)
        return substitute(self._image(true), self._image(wanted)) if z.requires_grad else self._image(true)

    def retract(self, z: Tensor, x: Tensor, threat: Threat) -> Tensor:
        return z

    def _in_steps(self, x: Tensor) -> Tensor:
        rows, steps = per_frequency(dct(pad(255 * x)), self.table)
        return (rows / steps).reshape(x.shape)

    def _image(self, codes: Tensor) -> Tensor:
        rows, steps = per_frequency(codes, self.table)
        return idct((rows * steps).reshape(codes.shape)) / 255
