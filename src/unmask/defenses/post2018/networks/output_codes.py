"""Error-correcting output codes: members of an ensemble predict bits, and the nearest code word is the class."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError

__all__ = ["Decode", "OutputCodes", "hadamard_code"]

_FLOOR = 1e-6  # of a class's correlation, so that its logarithm is finite


def hadamard_code(classes: int, bits: int) -> Tensor:
    """The first ``classes`` rows of Sylvester's Hadamard matrix as code words (classes, bits) of -1 and 1.

    The first column would be 1 for every class and tell nothing, so every second row has -1 there, as in the
    authors' code; two words then have a scalar product of 0 or -2. ``UnmaskError`` if ``bits`` is no power of two,
    or smaller than ``classes``.

    >>> hadamard_code(3, 4).int().tolist()
    [[-1, 1, 1, 1], [1, -1, 1, -1], [-1, 1, -1, -1]]
    """
    if bits < classes or bits & (bits - 1):
        raise UnmaskError(f"{classes} classes need a power of two of bits, at least {classes}, not {bits}")
    matrix = torch.ones(1, 1)
    while len(matrix) < bits:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    code = matrix[:classes].clone()
    code[::2, 0] = -1
    return code


class Decode(nn.Module):
    """Bits (B, bits) in [-1, 1] to the logarithm of class probabilities (B, classes).

    A class's probability is proportional to max(0, word @ bits), plus 1e-6.

    >>> Decode(hadamard_code(3, 4))(torch.tensor([[-1.0, 1, 1, 1]])).exp().round(decimals=4)
    tensor([[1., 0., 0.]])
    """

    code: Tensor

    def __init__(self, code: Tensor) -> None:
        super().__init__()
        self.register_buffer("code", code, persistent=False)

    def correlations(self, bits: Tensor) -> Tensor:
        """How well bits (B, bits), or their logits, agree with each class's word: (B, classes)."""
        return bits @ self.code.to(bits.dtype).T

    def forward(self, bits: Tensor) -> Tensor:
        share = self.correlations(bits).clamp_min(0) + _FLOOR
        return (share / share.sum(1, keepdim=True)).log()


class OutputCodes(nn.Module):
    """An ensemble that predicts the bits of a code (Verma & Swami, NeurIPS 2019). Vanishing gradients.

    Each member gives some of the logits of the bits; ``squash``, a tanh, makes them bits in [-1, 1]; ``decode``
    compares these with the word of each class. Confident bits have a tanh without slope, and classes whose
    correlation is negative have no gradient.

    Args:
        members: each (B, C, H, W) -> (B, its share of the bits), in the order of the code's columns.
        code: words (classes, bits) of -1 and 1.

    >>> members = [nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2)]
    >>> OutputCodes(members, hadamard_code(3, 4))(torch.rand(5, 1, 2, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(self, members: Iterable[nn.Module], code: Tensor) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.squash = nn.Tanh()
        self.decode = Decode(code)

    def bits(self, x: Tensor) -> Tensor:
        """The bits (B, bits) in [-1, 1] of images (B, C, H, W)."""
        squashed: Tensor = self.squash(torch.cat([member(x) for member in self.members], 1))
        return squashed

    def forward(self, x: Tensor) -> Tensor:
        log_probabilities: Tensor = self.decode(self.bits(x))
        return log_probabilities
