"""Sources of transfer attacks: the model without its faulty parts, and a surrogate model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from unmask.auditing.views.candidate_view import CandidateView, through
from unmask.auditing.views.candidate_views import without_parts
from unmask.auditing.views.reach import end_to_end_parts
from unmask.diagnosis.probe import GradientProbe
from unmask.diagnosis.trace import outermost
from unmask.gradients.parts.submodule_output import submodule_only
from unmask.gradients.surrogates.surrogate_model import train_surrogate
from unmask.models.model_wrappers import query
from unmask.randomness import Keys, use_keys

__all__ = ["surrogate_models"]

_AGREES = 0.5
"""Share of the images to which a stripped model must answer as the whole does."""


def surrogate_models(
    model: nn.Module, evidence: GradientProbe | None, x: Tensor, radius: float, keys: Keys, steps: int = 80
) -> list[CandidateView]:
    """Views to search instead of the model, on images (B, C, H, W) that it gets right.

    Args:
        evidence: what was found of the model's parts; None where it has none that could be seen.
        radius, keys, steps: as of :func:`unmask.gradients.surrogates.surrogate_model.train_surrogate`.
    """
    stripped = _stripped(evidence, x) if evidence else ()
    found = [candidate for candidate in stripped if _agrees(model, candidate, x, keys)]
    copy = train_surrogate(model, x, radius, keys.fold_in("copy"), steps=steps)
    return [*found, CandidateView(("train_surrogate(model, x, radius, keys)",), lambda _: copy)]


def _stripped(evidence: GradientProbe, x: Tensor) -> Iterator[CandidateView]:
    """Without the faulty parts; or the largest part that maps images to logits alone."""
    paths = list(dict.fromkeys(fault.event.part for fault in evidence.faults))
    outer = outermost(filter(None, paths))
    if outer:
        yield without_parts(outer)
    if paths and paths != outer:
        for path in end_to_end_parts(evidence, x):
            yield through(submodule_only, path)


@torch.no_grad()
def _agrees(model: nn.Module, candidate: CandidateView, x: Tensor, keys: Keys) -> bool:
    assert candidate.view is not None
    try:
        with use_keys(keys, uses_torch_random=True):
            one, other = (query(which, x).logits for which in (model, candidate.view(model)))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False  # nothing but the part itself gives what comes after it what it needs
    return one.shape == other.shape and float((one.argmax(1) == other.argmax(1)).double().mean()) >= _AGREES
