"""Verdicts of several attacks put together: the worst case for each example, accuracies, paired tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from unmask.kinds import Role
from unmask.records import Record
from unmask.report.run_folder import ExampleRecord, by_attack
from unmask.statistics import Accuracy, PairedTest, accuracy, paired_test

__all__ = [
    "accuracy_of",
    "accuracy_under_attack",
    "adaptive_accuracy",
    "known_accuracy",
    "named",
    "paired",
    "strongest",
    "worst",
    "worst_case",
]


def worst(attacks: Iterable[Mapping[int, ExampleRecord]]) -> dict[int, ExampleRecord]:
    """For each example the verdict under the attack that did best on the draws that attacks select by.

    Of equals the attack counts that did best on all examples, on the same draws: to look at the fresh
    ones would be to select by them.
    """
    chosen: dict[int, ExampleRecord] = {}
    for verdicts in strongest(attacks):
        for index, found in verdicts.items():
            if index not in chosen or found.example.selection_robust < chosen[index].example.selection_robust:
                chosen[index] = found
    return dict(sorted(chosen.items()))


def strongest(attacks: Iterable[Mapping[int, ExampleRecord]]) -> list[Mapping[int, ExampleRecord]]:
    """Attacks by what they leave on the draws that attacks select by, the one that leaves least first."""
    return sorted(attacks, key=_screened)


def worst_case(
    plain: Mapping[str, dict[int, ExampleRecord]], adaptive: Mapping[str, dict[int, ExampleRecord]]
) -> dict[int, ExampleRecord]:
    """The worst case over all attacks, on the examples that an adaptive attack has tried, if there is any."""
    chosen = worst([*adaptive.values(), *plain.values()])
    attacked = set().union(*adaptive.values()) if adaptive else chosen.keys()
    return {index: found for index, found in chosen.items() if index in attacked}


def accuracy_under_attack(records: Sequence[Record]) -> Accuracy | None:
    """The robust accuracy under the attacks of one case, with an interval that holds at any time."""
    plain, adaptive = (by_attack(r for r in records if r.job.role == role) for role in (Role.PLAIN, Role.ADAPTIVE))
    return accuracy_of(worst_case(plain, adaptive), anytime=True)


def adaptive_accuracy(
    plain: Mapping[str, dict[int, ExampleRecord]], adaptive: Mapping[str, dict[int, ExampleRecord]], *, anytime: bool
) -> Accuracy | None:
    """Worst case over all attacks; None where no adaptive one has been tried."""
    found = worst_case(plain, adaptive) if adaptive else {}
    return accuracy_of(found, named({**adaptive, **plain}), anytime=anytime)


def paired(
    plain: Mapping[int, ExampleRecord], adaptive: Mapping[int, ExampleRecord], *, anytime: bool
) -> PairedTest | None:
    """From the plain attacks to the adaptive ones alone, on the examples of both; None where there are none.

    Examples for which the plain attack returned an infeasible candidate are left out: the clean image was judged
    instead, and a plain attack that failed by a mistake says nothing about the gradient.
    """
    both = sorted(index for index in plain.keys() & adaptive.keys() if plain[index].example.feasible)
    if not both:
        return None
    before, after = ([found[i].example.robust for i in both] for found in (plain, adaptive))
    return paired_test(before, after, anytime=anytime)


def accuracy_of(found: Mapping[int, ExampleRecord], attack: str | None = None, *, anytime: bool) -> Accuracy | None:
    """The mean of the examples' shares, with its interval; None without examples."""
    return known_accuracy(found, attack, anytime=anytime) if found else None


def known_accuracy(found: Mapping[int, ExampleRecord], attack: str | None = None, *, anytime: bool) -> Accuracy:
    """The same of at least one example."""
    return accuracy([found[index].example.robust for index in sorted(found)], attack, anytime=anytime)


def named(attacks: Mapping[str, object]) -> str:
    """What to call the worst case over attacks."""
    return ("worst of " if len(attacks) > 1 else "") + ", ".join(attacks)


def _screened(verdicts: Mapping[int, ExampleRecord]) -> float:
    return sum(found.example.selection_robust for found in verdicts.values()) / len(verdicts)
