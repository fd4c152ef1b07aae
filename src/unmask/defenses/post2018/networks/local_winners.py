"""Stochastic local winner-takes-all: of each few units, one that is drawn at random answers for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.randomness import uniform

__all__ = ["LocalWinners", "WinnersNet", "expected_winner"]


class LocalWinners(nn.Module):
    """Draw a winner in each group of units and silence the others: (B, C, ...) -> (B, C, ...).

    Panousis et al. (AISTATS 2021). Groups are neighbouring channels. A unit wins with the probability that the
    softmax of its group gives it, drawn as a relaxed one-hot vector (Gumbel-softmax), by which the group is
    multiplied. As in the authors' code, the temperature of the relaxation is 0.67 in training and 0.01 in evaluation:
    there the vector is all but one-hot, and its slope is zero, or up to hundreds where two units nearly tie.

    Args:
        units: of a group; C is a multiple of it.
        temperature: of the relaxation, in evaluation mode.
        training_temperature: in training mode.

    >>> LocalWinners()(torch.tensor([[9.0, -9.0]])).round().tolist()
    [[9.0, -0.0]]
    """

    def __init__(self, units: int = 2, temperature: float = 0.01, training_temperature: float = 0.67) -> None:
        super().__init__()
        if units < 2 or temperature <= 0 or training_temperature <= 0:
            raise UnmaskError(
                f"a group needs two units and a temperature above 0, not {units}, {temperature} and "
                f"{training_temperature}"
            )
        self.units, self.temperature, self.training_temperature = units, temperature, training_temperature

    def forward(self, h: Tensor) -> Tensor:
        group = _groups(h, self.units)
        u = uniform(group.shape, like=group).clamp_min(torch.finfo(group.dtype).tiny)
        gumbel = -(-u.log()).clamp_min(torch.finfo(group.dtype).tiny).log()
        winner = ((group + gumbel) / (self.training_temperature if self.training else self.temperature)).softmax(2)
        return (group * winner).flatten(1, 2)


def expected_winner(h: Tensor, units: int = 2) -> Tensor:
    """The mean of ``LocalWinners`` over its draws, at a temperature near 0: its surrogate for :func:`bpda`.

    >>> expected_winner(torch.tensor([[2.0, 2.0, 9.0, -9.0]])).round().tolist()
    [[1.0, 1.0, 9.0, -0.0]]
    """
    group = _groups(h, units)
    return (group * group.softmax(2)).flatten(1, 2)


def _groups(h: Tensor, units: int) -> Tensor:
    """(B, C, ...) -> (B, C / units, units, ...)."""
    if h.shape[1] % units:
        raise UnmaskError(f"{h.shape[1]} units are no whole number of groups of {units}")
    groups: Tensor = h.unflatten(1, (-1, units))
    return groups


class WinnersNet(nn.Module):
    """A classifier whose every activation is ``LocalWinners``: (B, channels, size, size) -> (B, classes).

    Two convolutions, the second of stride 2, ``depth`` more of the same width, a last one of stride 2, and two linear
    layers. ``compete`` is one part of the model, called after each layer: ``bpda("compete", ...)`` approximates all of
    them at once. Stochastic gradients: those of two draws have nothing in common, since slopes of hundreds multiply
    from layer to layer.

    >>> WinnersNet(1, 8, depth=2)(torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """

    def __init__(self, channels: int, size: int, width: int = 30, depth: int = 8, classes: int = 10) -> None:
        super().__init__()
        left = -(-size // 4)
        self.compete = LocalWinners()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.Conv2d(width, width, 3, stride=2, padding=1),
                *(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth)),
                nn.Conv2d(width, width, 3, stride=2, padding=1),
            ]
        )
        self.hidden = nn.Linear(width * left * left, 64)
        self.last = nn.Linear(64, classes)
        for layer in (*self.convolutions, self.hidden, self.last):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.convolutions:
            x = self.compete(layer(x))
        logits: Tensor = self.last(self.compete(self.hidden(x.flatten(1))))
        return logits
