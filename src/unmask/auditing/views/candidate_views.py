"""The candidate views: each replaces the gradient of faulty operations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn

from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView, named, plain, through
from unmask.auditing.views.reach import (
    calls,
    cut_off,
    end_to_end_parts,
    ends,
    features,
    last_reached,
    logit_calls,
    reached_by_torch,
    responsible,
    same_form,
)
from unmask.auditing.views.reads import and_read, one_by_one, reaching, votes
from unmask.diagnosis.probe import GradientProbe
from unmask.diagnosis.trace import within
from unmask.gradients.bpda import bpda, bypass
from unmask.gradients.dequantized import dequantized, is_quantized
from unmask.gradients.finite_gradients import finite_gradients
from unmask.gradients.functions import bpda_function
from unmask.gradients.parts.agreement import agreement
from unmask.gradients.parts.skip_to import skip_to
from unmask.gradients.parts.submodule_output import submodule_output
from unmask.gradients.straight_through import narrow_straight_through, straight_through, unrolled
from unmask.gradients.surrogates.finite_differences import finite_differences
from unmask.gradients.surrogates.fit_refusal import fit_refusal, refusal_head
from unmask.gradients.surrogates.fit_surrogate import fit_skip, fit_surrogate
from unmask.gradients.surrogates.surrogate_model import fit_head

__all__ = ["agreements", "candidate_views", "expensive_views", "fitted_refusals", "fitted_views", "without_parts"]

_FEW = 64
"""Operations of a part that it may be asked dozens of times for a gradient."""

_ROUNDS = 4
"""How often a part is queried for each image that a surrogate is fitted on, with new noise each time."""

_CALLS = 8
"""Of a part in a pass, up to which each call gets a surrogate of its own."""

_FITTED = 128
"""Images that a head of refusals is fitted on, at most."""

_COMPARISONS = {"gt", "ge", "lt", "le", "greater", "greater_equal", "less", "less_equal", "sign", "sgn", "heaviside"}
"""Operations whose surrogate is a smooth step."""

_MOST = 0.5
"""Share of the images without a gradient from which the answer counts as one that no gradient reaches."""

_UNFIT = (ValueError, RuntimeError, AttributeError, IndexError, TypeError)
"""What is raised where a part is given, or gives, no tensor of images or features, so that nothing can be fitted."""

_SMALL = 1024
"""Numbers that go into a part for an image, up to which finite differences see anything in the noise."""


def candidate_views(model: nn.Module, evidence: GradientProbe, x: Tensor, classes: int) -> list[CandidateView]:
    """The model's own gradient first; then views of each faulty part alone, and of all of them together.

    ``x`` (B, C, H, W) are images such as the model gets.
    """
    around = [OWN_GRADIENT]
    if evidence.nonfinite.share:
        around.append(plain(finite_gradients))
    if is_quantized(model):
        around.append(plain(dequantized, end_to_end=False))
    if evidence.faults or evidence.saturation.zero_gradient > 0:  # no gradient, and perhaps nobody to blame
        alike = [path for path, event in responsible(evidence).items() if same_form(event)]
        inline = plain(straight_through)
        for name in dict.fromkeys(fault.event.name for fault in evidence.faults if fault.event.custom):
            inline = through(bpda_function, name).then(inline)
        around.append(inline)
        if any(fault.event.name in _COMPARISONS for fault in evidence.faults):
            around.append(plain(narrow_straight_through))
        parts = OWN_GRADIENT
        for path in alike:
            parts = parts.then(through(bpda, path))
        if parts is not OWN_GRADIENT:
            around += [parts, parts.then(inline)]
        cut = named(cut_off(evidence, reached_by_torch(evidence)))
        for path in dict.fromkeys((*([cut] if cut else []), *end_to_end_parts(evidence, x))):
            joined = through(skip_to, path)
            around += [joined, joined.then(inline)]
        source = _source(evidence)
        if source is not None:
            code = f"skip_to({json.dumps(cut)}, source={json.dumps(source)})"
            around.append(CandidateView((code,), skip_to(cut, source=source)))
    return [*and_read(around, evidence, classes), *votes(evidence, classes), *one_by_one(evidence, classes)]


def fitted_views(model: nn.Module, evidence: GradientProbe, x: Tensor, classes: int) -> list[CandidateView]:
    """For what those leave: through surrogates that are fitted to faulty parts, or to the code before a part.

    ``x`` (B, C, H, W) are images to fit on.
    """
    if not evidence.faults and evidence.saturation.zero_gradient <= 0:
        return []
    around, cut = [*_fitted(model, evidence, x)], cut_off(evidence, reached_by_torch(evidence))
    if cut:
        around += _skipping(model, cut, _source(evidence), x)
    return and_read(around, evidence, classes)


def _source(evidence: GradientProbe) -> str | None:
    """The last part that gradients reach before those that they do not, where there are such."""
    reached = reached_by_torch(evidence)
    cut = cut_off(evidence, reached)
    return last_reached(evidence, reached, cut[0]) if cut else None


def expensive_views(model: nn.Module, evidence: GradientProbe, x: Tensor, radius: float) -> list[CandidateView]:
    """For what all others leave: through the gradients that the model takes itself, if any; finite differences through
    faulty parts that are small; the model without them; features with a head that is fitted to the answers.

    ``x`` (B, C, H, W) are images to fit on, and ``radius`` is that of attacks, per pixel, root mean square.
    """
    inner = any(one.event.inner for one in evidence.parts)
    faulty = {path: event for path, event in responsible(evidence).items() if event.inputs}
    inside = {path: sum(within(one.event.part, path) for one in evidence.parts) for path in faulty}
    cheap = {path: event.inputs[0].value for path, event in faulty.items() if inside[path] <= _FEW}
    small = {path: given for path, given in cheap.items() if given[0].numel() <= _SMALL}
    slopes = OWN_GRADIENT
    for path, given in small.items():
        size = max(float(f"{0.25 * float(given.float().std()):.1g}"), 1e-3)
        code = f"finite_differences({json.dumps(path)}, size={size})"
        slopes = slopes.then(CandidateView((code,), finite_differences(path, size=size)))
    own = plain(unrolled) if inner else OWN_GRADIENT
    heads = _fitted_head(model, evidence, x, radius)
    return [view for view in (own, slopes, without_parts(faulty), *heads) if view is not OWN_GRADIENT]


def without_parts(paths: Iterable[str]) -> CandidateView:
    """The model without some parts; the model itself where there are none."""
    candidate = OWN_GRADIENT
    for path in paths:
        candidate = candidate.then(through(bypass, path, end_to_end=False))
    return candidate


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


def _fitted_head(model: nn.Module, evidence: GradientProbe, x: Tensor, radius: float) -> Iterator[CandidateView]:
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


def agreements(evidence: GradientProbe, classes: int) -> list[CandidateView]:
    """For a model that refuses: the class that all calls with logits agree on, past code outside of torch, and where
    gradients are disabled.
    """
    *_, (view, reached) = reaching(evidence)
    parts = logit_calls(evidence, reached, classes)
    return [view.then(through(agreement, named(parts), end_to_end=False))] if parts else []


def fitted_refusals(model: nn.Module, evidence: GradientProbe, x: Tensor, radius: float) -> list[CandidateView]:
    """For a model that refuses: through a head that is fitted to its refusals, of the features that gradients reach
    past code outside of torch, and where they are disabled.

    ``x`` and ``radius`` are as of :func:`expensive_views`.
    """
    *_, (view, reached) = reaching(evidence)
    parts = features(evidence, reached)
    if not parts or view.view is None:
        return []
    part, few = named(parts), x[:_FITTED]
    try:
        head = fit_refusal(view.view(model), part, few, radius=radius)
    except _UNFIT:
        return []
    quoted, images = json.dumps(part), f"x[:{_FITTED}]" if len(few) < len(x) else "x"
    made = f"unmask.fit_refusal({_applied(view)}, {quoted}, {images}, radius={radius!r})"
    return [view.then(CandidateView((f"refusal_head({quoted}, {made})",), refusal_head(part, head)))]


def _applied(view: CandidateView) -> str:
    """The view of ``model``, as Python writes it."""
    code = "model"
    for call in view.code:
        code = f"unmask.{call}({code})"
    return code
