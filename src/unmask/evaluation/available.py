"""Which cases can run on this machine: a data set may be missing, or weights that others trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from unmask.cases import Case
from unmask.data import DataError, Dataset

__all__ = ["Available", "available"]


@dataclass(frozen=True)
class Available:
    """Some cases, sorted.

    Args:
        cases: that can run.
        skipped: names of those that cannot, each with the names of what it lacks.
        missing: what is missing, by name: a sentence that says how to get it.
    """

    cases: tuple[Case, ...]
    skipped: dict[str, tuple[str, ...]]
    missing: dict[str, str]

    def __str__(self) -> str:
        """A line on what is skipped, and one on how to get each thing that is missing; empty where nothing is.

        >>> print(Available((), {"a": ("mnist",), "b": ("mnist",)}, {"mnist": "mnist is missing: put it there"}))
        2 of 2 cases are skipped, since something is missing: a, b (mnist)
        mnist is missing: put it there
        """
        if not self.skipped:
            return ""
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, lacks in self.skipped.items():
            groups.setdefault(lacks, []).append(name)
        missing = "; ".join(f"{', '.join(names)} ({', '.join(lacks)})" for lacks, names in groups.items())
        total = len(self.skipped) + len(self.cases)
        first = f"{len(self.skipped)} of {total} cases are skipped, since something is missing: {missing}"
        return "\n".join([first, *self.missing.values()])


def available(cases: Iterable[Case], dataset: Callable[[str], Dataset]) -> Available:
    """Look for the data and the pretrained weights of each case; ``dataset`` loads, or raises :class:`DataError`."""
    found: list[Case] = []
    skipped: dict[str, tuple[str, ...]] = {}
    missing: dict[str, str] = {}
    looked_for: set[str] = set()
    for case in cases:
        if case.data not in looked_for:
            looked_for.add(case.data)
            try:
                dataset(case.data)
            except DataError as error:
                missing[case.data] = str(error)
        if case.missing_weights:
            missing[f"weights {case.pretrained}"] = case.missing_weights
        lacks = tuple(name for name in (case.data, f"weights {case.pretrained}") if name in missing)
        if lacks:
            skipped[case.name] = lacks
        else:
            found.append(case)
    return Available(tuple(found), skipped, missing)
