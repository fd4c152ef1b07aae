"""Failures of code that others wrote, told in one line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["in_one_line"]


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Whatever goes wrong in the block is a ValueError of one line: ``what``, the error and the line that raised it.

    A model that ends the process by ``sys.exit`` fails too.

    >>> with in_one_line("the model"):
    ...     raise SystemExit(0)
    Traceback (most recent call last):
    ValueError: the model fails with SystemExit at <doctest ...>:2: 0
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        frame = next((f for f in reversed(frames) if "site-packages" not in f.filename), frames[-1])
        first = next(iter(str(error).strip().splitlines()), "no message")
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        raise ValueError(f"{what} fails with {type(error).__name__} at {where}: {first}") from error
