"""The trajectory of an attack: some of the candidates that it tried for an example, in their order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from unmask.types import Model

__all__ = ["TrajectoryPoint", "TrajectoryRecorder"]


class TrajectoryPoint(NamedTuple):
    """One candidate on the way."""

    step: int  # it was the step-th candidate of its example, from 1
    x_adv: Tensor  # (C, H, W), on the CPU
    view: Model  # that the attack looked through


class TrajectoryRecorder:
    """Candidates of a few examples, spread evenly over however many come, with the first and the last.

    Every candidate is kept until there are too many; then every second goes, and only every second is
    kept from then on, and so on. What is kept of an example depends on its own candidates alone.

    Args:
        rows: numbers of the examples to follow.
        max_points: candidates of one example without the last; never less than half of them where there were more.

    >>> import torch
    >>> trail = TrajectoryRecorder([1], max_points=4)
    >>> for step in range(10):
    ...     trail.record(torch.tensor([0, 1]), torch.full((2, 1, 1, 1), step / 10), torch.nn.Flatten())
    >>> [stop.step for stop in trail.of(1)]
    [1, 5, 9, 10]
    """

    def __init__(self, rows: Iterable[int], max_points: int = 24) -> None:
        self._kept: dict[int, list[TrajectoryPoint]] = {row: [] for row in rows}
        self._last: dict[int, TrajectoryPoint] = {}
        self._stride = dict.fromkeys(self._kept, 1)
        self._most = max_points

    @property
    def rows(self) -> tuple[int, ...]:
        """The examples that are followed."""
        return tuple(self._kept)

    def of(self, row: int) -> list[TrajectoryPoint]:
        """The stops of an example; none where the attack had no candidate for it."""
        kept = self._kept[row]
        last = [self._last[row]] if row in self._last and self._last[row].step != kept[-1].step else []
        return [*kept, *last]

    def record(self, rows: Tensor, x_adv: Tensor, view: Model) -> None:
        """Candidates (M, C, H, W) for the examples ``rows`` (M,), of which each occurs once."""
        for place, row in enumerate(rows.tolist()):
            if row in self._kept:
                self._add(row, x_adv[place].detach().to("cpu", copy=True), view)

    def _add(self, row: int, x_adv: Tensor, view: Model) -> None:
        step = self._last[row].step + 1 if row in self._last else 1
        self._last[row] = stop = TrajectoryPoint(step, x_adv, view)
        if (step - 1) % self._stride[row]:
            return
        self._kept[row].append(stop)
        if len(self._kept[row]) > self._most:
            self._kept[row] = self._kept[row][::2]
            self._stride[row] *= 2
