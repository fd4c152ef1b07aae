"""Where the command line writes."""

from __future__ import annotations

from rich.console import Console

__all__ = ["err", "fail", "out", "say", "warn"]

out = Console()
err = Console(stderr=True)


def say(line: str) -> None:
    """A line for people and pipes alike, which no width breaks."""
    print(line)


def warn(text: str) -> None:
    """Lines to stderr, which no width breaks."""
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def fail(message: str, code: int = 2) -> int:
    """One line to stderr; the exit code that goes with it."""
    warn(f"unmask: {' '.join(message.split())}")
    return code
