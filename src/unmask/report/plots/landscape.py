"""The loss around a few images of an audit, and the loss that the model's own gradient predicts there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from unmask.kinds import Role
from unmask.report.plots.stored_tensors import Array, StoredTensors
from unmask.report.plots.svg import ADAPTIVE, LINE, PLAIN, QUIET, plots
from unmask.report.run_folder import CaseInfo, RunFolder

__all__ = ["Landscape", "Slice", "landscape", "slices"]

_BANDS = 6  # of colour, on either side of the boundary
_SHADES = [0.75 * (band + 0.5) / _BANDS for band in range(_BANDS)]
_STEPS = (-0.5, 0, 0.5, 1, 1.5)  # that have a number
_ENDS = ((-1, 1), (-0.5, 1.5))  # of the steps in the random direction, and along the attack


@dataclass(frozen=True)
class Slice:
    """The loss around one image: at 0 of both directions, while 1 of the first is its adversarial image."""

    index: int
    label: int
    along: Array  # (A,) steps along the attack
    beside: Array  # (B,) steps in a random direction
    loss: Array  # (B, A)
    slope: Array  # (A - 1,) derivative between the steps along the attack, by the model's gradient; NaN for none

    @property
    def line(self) -> Array:
        """(A,) the loss along the attack."""
        line: Array = self.loss[len(self.beside) // 2]
        return line

    @property
    def predicted(self) -> Array:
        """(A,) the same by the gradient: the loss of the image and the slopes, added up from there."""
        start = self.at(0)
        change = np.concatenate(([0], np.cumsum(self.slope * np.diff(self.along))))
        predicted: Array = self.line[start] + change - change[start]
        return predicted

    def at(self, step: float) -> int:
        """The place of a step along the attack."""
        return int(np.abs(self.along - step).argmin())


@dataclass(frozen=True)
class Landscape:
    """An ``<svg>`` element, and what it says in words."""

    svg: Markup
    text: str


def slices(run: RunFolder, case: CaseInfo) -> Iterator[Slice]:
    """The slices that the adaptive attack of an audit kept. Raises UnmaskError where a file of examples is broken."""
    kept = StoredTensors(run)
    for record in run.of(case, Role.ADAPTIVE):
        tensors, labels = kept.all(record), {example.index: example.label for example in record.examples}
        for place, index in enumerate(tensors.get("slice_index", ())):
            loss = tensors["slice_loss"][place].astype(float) * float(tensors["slice_scale"][place])
            beside, along = (np.linspace(*ends, size) for ends, size in zip(_ENDS, loss.shape, strict=True))
            yield Slice(
                int(index), labels[int(index)], along, beside, loss, tensors["slice_slope"][place].astype(float)
            )


def landscape(run: RunFolder, case: CaseInfo) -> Landscape | None:
    """The slices of a case as one picture; None where there are none."""
    found = [*slices(run, case)]
    if not found:
        return None
    svg = plots(f"{case.case} landscape", [(_map(case, one), _curve(one)) for one in found])
    return Landscape(Markup(svg), "Loss landscape. " + " ".join(map(_said, found)))


def _said(one: Slice) -> str:
    before, after, predicted = one.line[one.at(0)], one.line[one.at(1)], one.predicted[one.at(1)]
    own = "it has no gradient" if np.isnan(predicted) else f"its gradient predicts {predicted:.2f}"
    return f"Example {one.index}: from {before:.2f} at the image to {after:.2f} at the adversarial image; {own}."


def _map(case: CaseInfo, one: Slice) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        levels, colours = [0.0], list[tuple[float, float, float, float]]()
        if (low := float(one.loss.min())) < 0:
            levels = [*np.linspace(low, 0, _BANDS + 1).tolist()]
            colours = [to_rgba(PLAIN, shade) for shade in _SHADES[::-1]]
        if (high := float(one.loss.max())) > 0:
            levels += np.linspace(0, high, _BANDS + 1)[1:].tolist()
            colours += [to_rgba(ADAPTIVE, shade) for shade in _SHADES]
        if colours:
            axes.contourf(one.along, one.beside, one.loss, levels=levels, colors=colours)
        if low < 0 < high:
            axes.contour(one.along, one.beside, one.loss, levels=[0], colors=[QUIET], linewidths=1)
        for step, marker, name in ((0, "o", "image"), (1, "X", "adversarial image")):
            axes.plot(step, 0, color=QUIET, marker=marker, markersize=6, linestyle="", label=name)
        axes.set_xticks(_STEPS)
        axes.set_yticks([])
        axes.set_xlabel("along the attack", color=QUIET)
        axes.set_ylabel(f"example {one.index}, class {case.name_of(one.label)}", color=QUIET, parse_math=False)

    return draw


def _curve(one: Slice) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        axes.axhline(0, color=QUIET, linewidth=1)
        for step in (0, 1):
            axes.axvline(step, color=LINE, linewidth=1)
        axes.plot(one.along, one.line, color=ADAPTIVE, linewidth=1.8, label="loss")
        axes.plot(one.along, one.predicted, "--", color=PLAIN, linewidth=1.8, label="predicted by the gradient")
        axes.set_xticks(_STEPS)
        low, high = min(0, *one.line), max(0, *one.line)
        room = (high - low) / 2 or 1.0
        axes.set_ylim(low - room, high + room)  # a wrong prediction may be anywhere
        axes.set_xlabel("along the attack", color=QUIET)

    return draw
