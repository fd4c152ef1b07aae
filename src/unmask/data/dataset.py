"""A labelled set of images of one shape, and the error that every fault of data is reported by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmask.errors import UnmaskError

__all__ = ["DataError", "Dataset", "TooFewExamples", "check_labels"]


_SHOWN = 10
"""Classes that a line on a data set names."""


class DataError(UnmaskError):
    """Data that is missing, broken or of another form: one line that says what is wrong and what to do.

    >>> str(DataError("broken\\nfile"))
    'broken file'
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(" ".join(problem.splitlines()), " ".join(remedy.splitlines()))


class TooFewExamples(DataError):
    """More examples are asked for than there are."""


def check_labels(labels: Tensor, classes: int, what: Callable[[int], str]) -> None:
    """Refuse labels (N,) that are below 0 or not below ``classes``; ``what(row)`` names the first of them.

    >>> check_labels(torch.tensor([0, 2]), 2, "x.csv: row {}".format)
    Traceback (most recent call last):
    unmask.data.dataset.DataError: x.csv: row 1 has label 2, but labels run from 0 to 1: correct it
    """
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{what(row)} has label {int(labels[row])}, but labels run from 0 to {classes - 1}", "correct it"
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """N labelled images of one shape, kept as the numbers they are stored in.

    ``floats`` and ``batch`` give what a model takes: float32 in [0, 1], pixel / ``scale``. Images that are no whole
    numbers are kept as float32 in [0, 1]; their ``scale`` is that of the usual image files. The order of the examples
    is fixed, so that a position in it names an example.

    Raises :class:`DataError` if shapes or types disagree, a pixel exceeds ``scale`` or a label has no class.

    >>> pixels = torch.tensor([0, 4, 8, 16], dtype=torch.uint8).reshape(2, 1, 1, 2)
    >>> pair = Dataset("pair", pixels, torch.tensor([1, 0]), ("a", "b"), "two rows", scale=16)
    >>> x, y = pair.batch(1, 2)
    >>> x.flatten().tolist(), y.tolist()
    ([0.5, 1.0], [0])
    """

    name: str
    images: Tensor  # (N, C, H, W) uint8, 0 .. scale, or float32, 0 .. 1
    labels: Tensor  # (N,) int64, positions in ``classes``
    classes: tuple[str, ...]
    note: str  # what to call the data beside a result, e.g. "CIFAR-10 (JPEG copies)"
    scale: int = 255
    classes_known: bool = True  # False where they are counted from the labels, so that a model may have more
    classes_found: bool = False  # True where their names are those that occur, so that an absent one shifts the numbers

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype not in (torch.uint8, torch.float32) or not len(self.images):
            found = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise DataError(f"{self.name}: images must be uint8 or float32 (N, C, H, W) with N > 0, not {found}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise DataError(f"{self.name}: labels must be int64 ({len(self.images)},), not {found}")
        check_labels(self.labels, len(self.classes), lambda row: f"{self.name}: row {row}")
        white = 1 if self.images.is_floating_point() else self.scale
        low, high = (float(edge) for edge in self.images.aminmax())
        if not (low >= 0 and high <= white):  # also where one is NaN
            worst = low if low < 0 else high
            raise DataError(f"{self.name}: a pixel is {worst:g}, outside of the scale from 0 to {white}")

    def __str__(self) -> str:
        """One line on its size, shape and classes.

        >>> print(Dataset("rooms", torch.zeros(2, 3, 8, 9), torch.tensor([0, 1]), ("bath", "hall"), "rooms (shuffled)"))
        rooms (shuffled): 2 images of 9 x 8 pixels, RGB; 2 classes: bath, hall
        """
        n, channels, height, width = self.images.shape
        colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
        shown = [*self.classes[:_SHOWN], *(["..."] if len(self.classes) > _SHOWN else [])]
        count = f"{len(self.classes)} classes" if self.classes_known else f"labels up to {len(self.classes) - 1}"
        named = f": {', '.join(shown)}" if self.classes_known else ""
        return f"{self.note}: {n} images of {width} x {height} pixels, {colours}; {count}{named}"

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int) -> Dataset:
        """The first ``n`` examples in the same order; :class:`TooFewExamples` unless 1 <= n <= N."""
        if not 1 <= n <= len(self):
            raise TooFewExamples(f"{self.name}: n must be from 1 to {len(self)}, the examples there are, not {n}")
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def floats(self, index: Tensor | Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) as float32 in [0, 1] and labels (B,) of the examples at ``index``."""
        x = self.images[index]
        return x.clone() if x.is_floating_point() else x.float() / self.scale, self.labels[index]

    def batch(self, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """``floats`` of the examples from ``start`` to before ``stop``, cut off at the end like any slice."""
        return self.floats(slice(start, stop))
