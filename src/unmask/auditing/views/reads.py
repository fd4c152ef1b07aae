"""Views that read something else than the model's answer: logits inside it, votes before they are counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import torch

from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView, named, plain, through
from unmask.auditing.views.reach import (
    calls,
    cut_off,
    ends,
    logits,
    maps_to_logits,
    reached_by_torch,
    reached_by_views,
)
from unmask.diagnosis.probe import GradientProbe
from unmask.diagnosis.snapshots import Token
from unmask.gradients.parts.linear_output import linear_output
from unmask.gradients.parts.skip_to import skip_to
from unmask.gradients.parts.submodule_output import submodule_output
from unmask.gradients.parts.votes import median_votes, soft_votes
from unmask.gradients.straight_through import straight_through

__all__ = ["and_read", "one_by_one", "reaching", "votes"]


def and_read(views: list[CandidateView], evidence: GradientProbe, classes: int) -> list[CandidateView]:
    """These, and each of them with what has the form of logits for an output: of a part, or else of a linear map."""
    reads = [through(submodule_output, path, end_to_end=False) for path in logits(evidence, classes)]
    if not reads and maps_to_logits(evidence, classes):
        reads = [CandidateView((f"linear_output({classes})",), linear_output(classes), end_to_end=False)]
    return [*views, *(candidate.then(read) for read in reads for candidate in views)]


def votes(evidence: GradientProbe, classes: int) -> Iterator[CandidateView]:
    """Where the logits of several parts are lost at once: the mean of their probabilities, and the median of leads."""
    answers = {event.part: event.outputs[0].value.shape[1:] for event in calls(evidence) if event.outputs}
    for view, reached in reaching(evidence):
        parts = [path for path in ends(evidence, reached) if answers[path] == (classes,)]
        if len(parts) > 1:
            for head in (soft_votes, median_votes):
                code = f"submodule_output({json.dumps(parts)}, unmask.{head.__name__}({classes}))"
                vote = CandidateView((code,), submodule_output(parts, head(classes)), end_to_end=False)
                yield view.then(vote)
            return


def one_by_one(evidence: GradientProbe, classes: int) -> Iterator[CandidateView]:
    """Where a part gives one number of each image in each of as many calls as there are classes: those numbers, which
    may be scores or energies.
    """
    made = [(event.part, event.outputs[0].value) for event in calls(evidence) if event.outputs]
    numbers = Counter(part for part, value in made if value.ndim and value.numel() == len(value))
    for path in (path for path, count in numbers.items() if count == classes > 1):
        yield through(submodule_output, path, end_to_end=False)
        code = f"submodule_output({json.dumps(path)}, torch.neg)"
        yield CandidateView((code,), submodule_output(path, torch.neg), end_to_end=False)


def reaching(evidence: GradientProbe) -> Iterator[tuple[CandidateView, set[Token]]]:
    """What gradients reach: by themselves; then past code outside of torch, and where they are disabled."""
    yield OWN_GRADIENT, reached_by_torch(evidence)
    cut = cut_off(evidence, reached_by_views(evidence))
    past = through(skip_to, named(cut)) if cut else OWN_GRADIENT
    yield past.then(plain(straight_through)), reached_by_views(evidence, cut)
