"""Which classes the model takes the worst-case examples for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from unmask.kinds import Role
from unmask.records import Example
from unmask.report.run_folder import CaseInfo, RunFolder, by_attack
from unmask.report.verdict.worst_case import worst_case

__all__ = ["Confusion", "confusion"]

_REFUSED = "refused"


@dataclass(frozen=True)
class Confusion:
    """How many worst-case examples of each true class are predicted as each class.

    ``counts`` has a row for each of ``labels`` and a column for each of ``predictions``; of too many classes there is
    no table, and ``pairs`` holds the most frequent mistakes: true class, prediction, count.
    """

    labels: tuple[str, ...]
    predictions: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[str, str, int], ...]

    @property
    def largest(self) -> int:
        """The largest count."""
        return max(map(max, self.counts), default=0)


def confusion(run: RunFolder, case: CaseInfo, max_classes: int = 20, max_pairs: int = 10) -> Confusion | None:
    """None where the worst-case examples of no attack are mistaken for another class."""
    plain, adaptive = (by_attack(run.of(case, role)) for role in (Role.PLAIN, Role.ADAPTIVE))
    answers = Counter(_answer(found.example) for found in worst_case(plain, adaptive).values())
    mistakes = sorted(
        (pair for pair in answers if pair[1] not in (pair[0], None)), key=lambda pair: (-answers[pair], pair)
    )
    if not mistakes:
        return None
    classes = sorted({number for pair in answers for number in pair if number is not None})
    if len(classes) > max_classes:
        pairs = [(case.name_of(true), _name(case, given), answers[true, given]) for true, given in mistakes[:max_pairs]]
        return Confusion((), (), (), tuple(pairs))
    labels = [label for label in classes if any(true == label for true, _ in answers)]
    given = [*classes, *([None] if any(answer is None for _, answer in answers) else [])]
    return Confusion(
        tuple(map(case.name_of, labels)),
        tuple(_name(case, answer) for answer in given),
        tuple(tuple(answers[label, answer] for answer in given) for label in labels),
        (),
    )


def _answer(example: Example) -> tuple[int, int | None]:
    """True class and prediction, None for a refusal."""
    return example.label, None if example.refused else example.predicted


def _name(case: CaseInfo, answer: int | None) -> str:
    return _REFUSED if answer is None else case.name_of(answer)
