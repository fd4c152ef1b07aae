"""The output of the command line: no state of its streams makes a command fail."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from contextlib import suppress
from typing import IO, Any

from rich.console import Console

__all__ = ["err", "fail", "flushed", "make_streams_ready", "out", "say", "warn"]

_ASCII = {"∞": "inf", "—": "-", "≤": "<=", "≥": ">=", "…": "..."}
"""Replacements for characters that an encoding lacks."""


class _Lasting(Console):
    """A console that continues when its reader has closed the stream."""

    def on_broken_pipe(self) -> None:
        _mute(self.file)


out = _Lasting()
err = _Lasting(stderr=True)


def make_streams_ready() -> None:
    """Let a closed stream be the null device, and a narrow encoding do with other characters.

    A closed one would leave its number to the next file that is opened, into which messages would then be written.
    """
    codecs.register_error("unmask", _in_other_characters)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115
        elif number and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="unmask")


def say(line: str) -> None:
    """A line for people and pipes alike, which no width breaks."""
    try:
        print(line, flush=True)
    except BrokenPipeError:  # the reader of the output has closed it
        _mute(sys.stdout)


def warn(text: str) -> None:
    """Lines to stderr, which no width breaks."""
    err.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def fail(message: str, code: int = 2) -> int:
    """One line to stderr; the exit code that goes with it."""
    with suppress(OSError):
        warn(f"unmask: {' '.join(message.split())}")
    return code


def flushed() -> OSError | None:
    """Write out what was printed; the error where there is no room for it. Python does so at exit, and must not fail
    there once more.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _mute(sys.stdout)
    except OSError as error:
        _mute(sys.stdout)
        return error
    return None


def _mute(stream: IO[str]) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _in_other_characters(error: UnicodeError) -> tuple[str, int]:
    """What to write instead of characters that the encoding of a stream lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = (_ASCII.get(one) or unicodedata.normalize("NFKD", one).encode("ascii", "ignore").decode() for one in text)
    return "".join(one or "?" for one in plain), error.end
