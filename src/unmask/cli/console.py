"""Where the command line writes."""

from __future__ import annotations

from rich.console import Console

__all__ = ["err", "fail", "out", "say"]

out = Console()
err = Console(stderr=True)


def say(line: str) -> None:
    """A line for people and pipes alike, which no width breaks."""
    print(line)


def fail(message: str, code: int = 2) -> int:
    """One line to stderr; the exit code that goes with it."""
    err.print(f"unmask: {' '.join(message.split())}", markup=False, highlight=False, soft_wrap=True)
    return code
