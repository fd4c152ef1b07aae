"""Failures of other people's code, as one line."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unmask.errors import UnmaskError, first_line

__all__ = ["alive", "by_the_user", "in_one_line"]


@contextmanager
def in_one_line(what: str, *, prefixed: bool = True) -> Iterator[None]:
    """Whatever goes wrong in the block is an UnmaskError of one line: ``what``, the error and the line that raised it.

    A model that ends the process by ``sys.exit`` or ``os._exit`` fails too, and so does one that raises an interrupt of
    its own making; the user's goes on. The block must not hold a ``yield``: the end of its generator would count as a
    failure. An UnmaskError without ``prefixed`` stays as it is, since its message says what is wrong.

    >>> with in_one_line("the model"):
    ...     raise SystemExit(0)
    Traceback (most recent call last):
    unmask.errors.UnmaskError: the model fails with SystemExit at <doctest ...>:2: 0
    """
    try:
        with alive():
            yield
    except UnmaskError as error:
        if not prefixed:
            raise
        raise UnmaskError(f"{what}: {error.problem}", error.remedy) from error
    except BaseException as error:
        if by_the_user(error):
            raise
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        frame = next((f for f in reversed(frames) if "site-packages" not in f.filename), frames[-1])
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        reason = first_line(error)
        raise UnmaskError(f"{what} fails with {type(error).__name__} at {where}: {reason}") from error


def by_the_user(error: BaseException) -> bool:
    """Whether it is an interrupt from the keyboard, and none of a kind that other code defines."""
    return type(error) is KeyboardInterrupt


@contextmanager
def alive() -> Iterator[None]:
    """Within the block ``os._exit`` raises SystemExit in this process, so that no code ends it without a word.

    Code that leaves Python, such as a signal or the C library's own exit, still ends it.
    """
    end, process = os._exit, os.getpid()

    def refuse(status: int) -> None:
        if os.getpid() != process:  # a child that was forked ends so
            end(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = end
