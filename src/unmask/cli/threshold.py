"""What ``--fail-under`` requires of a run: enough robust accuracy, measured by a finished and reliable attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from unmask.errors import UnmaskError
from unmask.report.verdict.gradient_use import BLACK_BOX

if TYPE_CHECKING:
    from unmask.report.table import Row

__all__ = ["FailOn", "Threshold"]


class FailOn(StrEnum):
    """What is compared with the threshold."""

    FIGURE = "figure"
    LOWER = "lower"  # end of the 95 % interval


@dataclass(frozen=True)
class Threshold:
    """The least robust accuracy that each case of a run must have."""

    share: float
    on: FailOn = FailOn.FIGURE

    @classmethod
    def of(cls, share: float | None, on: FailOn) -> Threshold | None:
        """What the two options say; UnmaskError for ``--fail-on`` by itself."""
        if share is None and on is not FailOn.FIGURE:
            raise UnmaskError(f"--fail-on {on} is for --fail-under", "give --fail-under SHARE, too")
        return None if share is None else cls(share, on)

    def failures(self, rows: Sequence[Row]) -> list[str]:
        """Why each of the rows fails; nothing of those that pass."""
        return [f"{row.case}: {why}" for row in rows if (why := self._failure(row))]

    def _failure(self, row: Row) -> str:
        left = row.robust
        if not row.complete or left is None:
            return "the run is incomplete"
        if self.on is FailOn.LOWER and left.low < self.share:
            return f"the lower end of the interval is {left.low:.4g}, under {self.share:g}"
        if left.value < self.share:
            return f"robust accuracy {left.value:.4g} is under {self.share:g}"
        if BLACK_BOX in row.warnings[:1]:
            return f"unreliable: {BLACK_BOX}; give the model with its gradients, or leave out --fail-under"
        return f"unreliable: {row.warnings[0]}" if row.warnings else ""
