"""Verdicts of several attacks put together: the worst case for each example, accuracies, paired tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from unmask.records import Record
from unmask.report.read import Found, by_attack
from unmask.statistics import Accuracy, Gap, accuracy, gap

__all__ = [
    "accuracy_of",
    "adaptive_accuracy",
    "known_accuracy",
    "left",
    "named",
    "paired",
    "remaining",
    "strongest",
    "worst",
]


def worst(attacks: Iterable[Mapping[int, Found]]) -> dict[int, Found]:
    """For each example the verdict under the attack that did best on the draws that attacks select by.

    Of equals the attack counts that did best on all examples, on the same draws: to look at the fresh
    ones would be to select by them.
    """
    chosen: dict[int, Found] = {}
    for verdicts in strongest(attacks):
        for index, found in verdicts.items():
            if index not in chosen or found.example.screened < chosen[index].example.screened:
                chosen[index] = found
    return dict(sorted(chosen.items()))


def strongest(attacks: Iterable[Mapping[int, Found]]) -> list[Mapping[int, Found]]:
    """Attacks by what they leave on the draws that attacks select by, the one that leaves least first."""
    return sorted(attacks, key=_screened)


def remaining(plain: Mapping[str, dict[int, Found]], adaptive: Mapping[str, dict[int, Found]]) -> dict[int, Found]:
    """The worst case over all attacks, on the examples that an adaptive attack has tried, if there is any."""
    chosen = worst([*adaptive.values(), *plain.values()])
    tried = set().union(*adaptive.values()) if adaptive else chosen.keys()
    return {index: found for index, found in chosen.items() if index in tried}


def left(records: Sequence[Record]) -> Accuracy | None:
    """What the attacks of one case leave, by an interval that holds whenever it is asked for."""
    plain, adaptive = (by_attack(r for r in records if r.job.role == role) for role in ("plain", "adaptive"))
    return accuracy_of(remaining(plain, adaptive), anytime=True)


def adaptive_accuracy(
    plain: Mapping[str, dict[int, Found]], adaptive: Mapping[str, dict[int, Found]], *, anytime: bool
) -> Accuracy | None:
    """Worst case over all attacks; None where no adaptive one has been tried."""
    found = remaining(plain, adaptive) if adaptive else {}
    return accuracy_of(found, named({**adaptive, **plain}), anytime=anytime)


def paired(plain: Mapping[int, Found], adaptive: Mapping[int, Found], *, anytime: bool) -> Gap | None:
    """From the plain attacks to the adaptive ones alone, on the examples of both; None where there are none.

    Examples are left out for which the plain attack handed in an infeasible candidate: the clean image was judged
    instead, and a plain attack that failed by a mistake says nothing about the gradient.
    """
    both = sorted(index for index in plain.keys() & adaptive.keys() if plain[index].example.feasible)
    if not both:
        return None
    before, after = ([found[i].example.robust for i in both] for found in (plain, adaptive))
    return gap(before, after, anytime=anytime)


def accuracy_of(found: Mapping[int, Found], attack: str | None = None, *, anytime: bool) -> Accuracy | None:
    """The mean of the examples' shares, with its interval; None without examples."""
    return known_accuracy(found, attack, anytime=anytime) if found else None


def known_accuracy(found: Mapping[int, Found], attack: str | None = None, *, anytime: bool) -> Accuracy:
    """The same of at least one example."""
    return accuracy([found[index].example.robust for index in sorted(found)], attack, anytime=anytime)


def named(attacks: Mapping[str, object]) -> str:
    """What to call the worst case over attacks."""
    return ("worst of " if len(attacks) > 1 else "") + ", ".join(attacks)


def _screened(verdicts: Mapping[int, Found]) -> float:
    return sum(found.example.screened for found in verdicts.values()) / len(verdicts)
