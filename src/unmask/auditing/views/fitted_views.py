"""Views through networks that are fitted: to faulty parts, to the code before a part, to answers, to refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView, named
from unmask.auditing.views.reach import (
    calls,
    cut_off,
    ends,
    features,
    last_reached,
    reached_by_torch,
    responsible,
    source_of_gap,
)
from unmask.auditing.views.reads import and_read, reaching
from unmask.diagnosis.probe import GradientProbe
from unmask.gradients.bpda import bpda
from unmask.gradients.parts.skip_to import skip_to
from unmask.gradients.parts.submodule_output import submodule_output
from unmask.gradients.surrogates.fit_refusal import fit_refusal, refusal_head
from unmask.gradients.surrogates.fit_surrogate import fit_skip, fit_surrogate
from unmask.gradients.surrogates.surrogate_model import fit_head

__all__ = ["fitted_heads", "fitted_refusals", "fitted_views"]

_ROUNDS = 4
"""How often a part is queried for each image that a surrogate is fitted on, with new noise each time."""

_CALLS = 8
"""Of a part in a pass, up to which each call gets a surrogate of its own."""

_FITTED = 128
"""Images that a head of refusals is fitted on, at most."""

_MOST = 0.5
"""Share of the images without a gradient from which the answer counts as one that no gradient reaches."""

_UNFIT = (ValueError, RuntimeError, AttributeError, IndexError, TypeError)
"""What is raised where a part is given, or gives, no tensor of images or features, so that nothing can be fitted."""


def fitted_views(model: nn.Module, evidence: GradientProbe, x: Tensor, classes: int) -> list[CandidateView]:
    """For what those leave: through surrogates that are fitted to faulty parts, or to the code before a part.

    ``x`` (B, C, H, W) are images to fit on.
    """
    if not evidence.faults and evidence.saturation.zero_gradient <= 0:
        return []
    around, cut = [*_fitted(model, evidence, x)], cut_off(evidence, reached_by_torch(evidence))
    if cut:
        around += _skipping(model, cut, source_of_gap(evidence), x)
    return and_read(around, evidence, classes)


def fitted_heads(model: nn.Module, evidence: GradientProbe, x: Tensor, radius: float) -> Iterator[CandidateView]:
    """Where no gradient reaches the answer: the last features that it reaches, and a head fitted to the answer."""
    if evidence.parts[-1].event.outputs[0].edge is not None and evidence.saturation.zero_gradient < _MOST:
        return
    for view, reached in reaching(evidence):
        last, lost = last_reached(evidence, reached), ends(evidence, reached)
        found = [part for part in ((last,) if last else (), lost if len(lost) > 1 else ()) if part]
        for parts in dict.fromkeys(found):
            part = named(parts)
            try:
                head = fit_head(model if view.view is None else view.view(model), part, x, radius=radius)
            except _UNFIT:
                continue
            quoted = json.dumps(part)
            code = f"submodule_output({quoted}, unmask.fit_head({_applied(view)}, {quoted}, x, radius={radius!r}))"
            yield view.then(CandidateView((code,), submodule_output(part, head), end_to_end=False))
        if found:
            return


def fitted_refusals(model: nn.Module, evidence: GradientProbe, x: Tensor, radius: float) -> list[CandidateView]:
    """For a model that refuses: through a head that is fitted to its refusals, of the images and of the features that
    gradients reach past code outside of torch, and where they are disabled.

    ``x`` and ``radius`` are as of :func:`expensive_views`.
    """
    *_, (view, reached) = reaching(evidence)
    parts = features(evidence, reached)
    part, few = named(parts), x[:_FITTED]
    try:
        head = fit_refusal(model if view.view is None else view.view(model), part, few, radius=radius)
    except _UNFIT:
        return []
    quoted, images = json.dumps(part), f"x[:{_FITTED}]" if len(few) < len(x) else "x"
    made = f"unmask.fit_refusal({_applied(view)}, {quoted}, {images}, radius={radius!r})"
    return [view.then(CandidateView((f"refusal_head({quoted}, {made})",), refusal_head(part, head), fitted=True))]


def _fitted(model: nn.Module, evidence: GradientProbe, x: Tensor) -> Iterator[CandidateView]:
    """Through surrogates of faulty parts: one for each call, or, of a part that is called often, one for all calls."""
    candidate = OWN_GRADIENT
    for path in responsible(evidence):
        shapes = [event.inputs[0].value.shape for event in calls(evidence) if event.part == path and event.inputs]
        count = len(shapes) if len(shapes) <= _CALLS else len(set(shapes))
        if count > 1 and len(shapes) > _CALLS:
            return
        fitted = range(count)
        try:
            surrogates = [fit_surrogate(model, path, x, rounds=_ROUNDS, call=call) for call in fitted]
        except _UNFIT:
            return
        quoted = json.dumps(path)
        options = [f", call={call}" if count > 1 else "" for call in fitted]
        made = ", ".join(f"unmask.fit_surrogate(model, {quoted}, x, rounds={_ROUNDS}{call})" for call in options)
        code = f"bpda({quoted}, {made})" if count == 1 else f"bpda({quoted}, [{made}])"
        candidate = candidate.then(CandidateView((code,), bpda(path, surrogates)))
    if candidate is not OWN_GRADIENT:
        yield candidate


def _skipping(model: nn.Module, cut: Sequence[str], source: str | None, x: Tensor) -> Iterator[CandidateView]:
    """From parts behind a gap to the images, or to ``source``, the last part before the gap, by a fitted surrogate."""
    first, option = json.dumps(cut[0]), "" if source is None else f", source={json.dumps(source)}"
    try:
        surrogate = fit_skip(model, cut[0], x, source=source)
    except _UNFIT:
        return
    code = f"skip_to({json.dumps(named(cut))}, unmask.fit_skip(model, {first}, x{option}){option})"
    yield CandidateView((code,), skip_to(named(cut), surrogate, source))


def _applied(view: CandidateView) -> str:
    """The view of ``model``, as Python writes it."""
    code = "model"
    for call in view.code:
        code = f"unmask.{call}({code})"
    return code
