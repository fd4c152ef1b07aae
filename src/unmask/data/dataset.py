"""A labelled set of images of one shape, and the error that every fault of data is reported by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmask.errors import UnmaskError

__all__ = ["DataError", "Dataset"]


class DataError(UnmaskError):
    """Data that is missing, broken or of another form: one line that says what is wrong and what to do.

    >>> str(DataError("broken\\nfile"))
    'broken file'
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(" ".join(problem.splitlines()), " ".join(remedy.splitlines()))


@dataclass(frozen=True, eq=False)
class Dataset:
    """N labelled images of one shape, kept as the whole numbers they are stored in.

    ``floats`` and ``batch`` give what a model takes: float32 in [0, 1], pixel / ``scale``. The order of
    the examples is fixed, so that a position in it names an example.

    Raises :class:`DataError` if shapes or types disagree, a pixel exceeds ``scale`` or a label has no class.

    >>> pixels = torch.tensor([0, 4, 8, 16], dtype=torch.uint8).reshape(2, 1, 1, 2)
    >>> pair = Dataset("pair", pixels, torch.tensor([1, 0]), ("a", "b"), "two rows", scale=16)
    >>> x, y = pair.batch(1, 2)
    >>> x.flatten().tolist(), y.tolist()
    ([0.5, 1.0], [0])
    """

    name: str
    images: Tensor  # (N, C, H, W) uint8, 0 .. scale
    labels: Tensor  # (N,) int64, positions in ``classes``
    classes: tuple[str, ...]
    note: str  # what to call the data beside a result, e.g. "CIFAR-10 (JPEG copies)"
    scale: int = 255

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8 or not len(self.images):
            found = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise DataError(f"{self.name}: images must be uint8 (N, C, H, W) with N > 0, not {found}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise DataError(f"{self.name}: labels must be int64 ({len(self.images)},), not {found}")
        wrong = (self.labels < 0) | (self.labels >= len(self.classes))
        if wrong.any():
            row = int(wrong.nonzero()[0])
            known = f"labels run from 0 to {len(self.classes) - 1}"
            raise DataError(f"{self.name}: row {row} has label {int(self.labels[row])}, but {known}", "correct it")
        if self.images.max() > self.scale:
            raise DataError(f"{self.name}: a pixel is {int(self.images.max())}, above the scale of {self.scale}")

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int) -> Dataset:
        """The first ``n`` examples in the same order; :class:`DataError` unless 1 <= n <= N."""
        if not 1 <= n <= len(self):
            raise DataError(f"{self.name}: n must be from 1 to {len(self)}, the examples there are, not {n}")
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def floats(self, index: Tensor | Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) as float32 in [0, 1] and labels (B,) of the examples at ``index``."""
        return self.images[index].float() / self.scale, self.labels[index]

    def batch(self, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """``floats`` of the examples from ``start`` to before ``stop``, cut off at the end like any slice."""
        return self.floats(slice(start, stop))
