"""The error that every wrong input of a user becomes, and the errors of others in one line."""

from __future__ import annotations

__all__ = ["UnmaskError", "first_line"]


class UnmaskError(ValueError):
    """What is wrong with an input, and what to do; the command line prints it in one line.

    It is a ValueError, so that ``except ValueError`` catches it. Any other error out of unmask is a bug of unmask.

    Args:
        problem: what is wrong.
        remedy: what to do; empty where the problem says it.

    >>> error = UnmaskError("EOT got samples=0", "give 1 at least")
    >>> print(error)
    EOT got samples=0: give 1 at least
    >>> error.problem, error.remedy
    ('EOT got samples=0', 'give 1 at least')
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)  # what pickle and copy give again
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem


def first_line(error: BaseException, otherwise: str = "no message") -> str:
    """Of an error's message; ``otherwise`` where it has none.

    >>> first_line(ValueError("one\\ntwo"), "none"), first_line(ValueError(), "none")
    ('one', 'none')
    """
    return next(iter(str(error).strip().splitlines()), otherwise)
