"""The barrage itself: some of the groups, drawn for each image, one after the other in an order that is drawn too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.defenses.post2018.inputs.barrage.colour import colour_space, contrast, grey_scale, precision
from unmask.defenses.post2018.inputs.barrage.place import denoise, fourier, jpeg, noise, swirl, zoom
from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["GROUPS", "Barrage"]

GROUPS = (precision, jpeg, swirl, noise, fourier, zoom, colour_space, contrast, grey_scale, denoise)
"""The ten groups of the paper, in its order; each draws one of its transformations and the parameters."""

_NUMBERS = 8


class Barrage(nn.Module):
    """``count`` of the ten groups, for each image others and in another order: (B, 3, H, W) in [0, 1], the same.

    BaRT (Raff et al., CVPR 2019). H = W is a multiple of 8.

    >>> Barrage(5)(torch.rand(3, 3, 32, 32)).shape
    torch.Size([3, 3, 32, 32])
    """

    def __init__(self, count: int = 5) -> None:
        super().__init__()
        if not 0 < count <= len(GROUPS):
            raise UnmaskError(f"a barrage has 1 to {len(GROUPS)} transformations, not {count}")
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        like = x[:1].detach().float()
        order = uniform((len(x), len(GROUPS)), like).argsort(1)[:, : self.count]
        numbers = uniform((len(x), len(GROUPS), _NUMBERS), like)
        field = uniform((len(x), 2, *x.shape[1:]), like)
        for chosen in order.T:
            parts, rows = [], []
            for group, transform in enumerate(GROUPS):
                row = (chosen == group).nonzero()[:, 0]
                if len(row):
                    parts.append(transform(x[row], numbers[row, group], field[row, group % 2]))
                    rows.append(row)
            x = torch.cat(parts)[torch.cat(rows).argsort()]
        return x
