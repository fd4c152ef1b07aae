"""What a form of data is: which texts name it, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unmask.data.dataset import Dataset

__all__ = ["Form", "Wanted", "noted"]


@dataclass(frozen=True)
class Wanted:
    """What is to be loaded of a data set.

    Args:
        name: what the user calls it, as after ``--data``.
        split: "train" or "test".
        n: the first examples alone; None for all. Where there are fewer, all of them.
        size: of the square to which images are resized and cropped; None to leave them as they are.
    """

    name: str
    split: str = "test"
    n: int | None = None
    size: int | None = None

    @property
    def path(self) -> Path:
        return Path(self.name).expanduser()


@dataclass(frozen=True)
class Form:
    """A form of data.

    Args:
        syntax: of the text that names such data.
        about: a line on what is expected.
        example: such a text.
        claims: whether the data that a text names have this form.
        load: them; :class:`unmask.data.DataError` where they are missing, broken or do not fit.
    """

    syntax: str
    about: str
    example: str
    claims: Callable[[Wanted], bool]
    load: Callable[[Wanted], Dataset]


def noted(title: str, remarks: Sequence[str]) -> str:
    """What to call data beside a result.

    >>> noted("photos", ["JPEG", "shuffled"])
    'photos (JPEG, shuffled)'
    """
    return f"{title} ({', '.join(remarks)})" if remarks else title
