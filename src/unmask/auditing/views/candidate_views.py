"""The candidate views: each replaces the gradient of faulty operations."""

from __future__ import annotations

import json
from collections.abc import Iterable

from torch import Tensor, nn

from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView, named, plain, through
from unmask.auditing.views.fitted_views import fitted_heads
from unmask.auditing.views.reach import (
    agreeing_maps,
    cut_off,
    end_to_end_parts,
    logit_calls,
    reached_by_torch,
    responsible,
    same_form,
    source_of_gap,
)
from unmask.auditing.views.reads import and_read, one_by_one, reaching, votes
from unmask.diagnosis.probe import GradientProbe
from unmask.diagnosis.trace import within
from unmask.gradients.bpda import bpda, bypass
from unmask.gradients.dequantized import dequantized, is_quantized
from unmask.gradients.finite_gradients import finite_gradients
from unmask.gradients.functions import bpda_function
from unmask.gradients.parts.agreement import agreement, linear_agreement
from unmask.gradients.parts.skip_to import skip_to
from unmask.gradients.straight_through import narrow_straight_through, straight_through, unrolled
from unmask.gradients.surrogates.finite_differences import finite_differences

__all__ = ["agreements", "candidate_views", "expensive_views", "without_parts"]

_FEW = 64
"""Operations of a part that it may be asked dozens of times for a gradient."""

_COMPARISONS = {"gt", "ge", "lt", "le", "greater", "greater_equal", "less", "less_equal", "sign", "sgn", "heaviside"}
"""Operations whose surrogate is a smooth step."""

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
        source = source_of_gap(evidence)
        if source is not None:
            code = f"skip_to({json.dumps(cut)}, source={json.dumps(source)})"
            around.append(CandidateView((code,), skip_to(cut, source=source)))
    return [*and_read(around, evidence, classes), *votes(evidence, classes), *one_by_one(evidence, classes)]


def agreements(evidence: GradientProbe, classes: int) -> list[CandidateView]:
    """For a model that refuses: the class that all calls with logits agree on, past code outside of torch, and where
    gradients are disabled; and that all linear maps to logits do, where networks are no parts of the model.
    """
    *_, (view, reached) = reaching(evidence)
    parts, maps = logit_calls(evidence, reached, classes), agreeing_maps(evidence, reached, classes)
    found = [through(agreement, named(parts), end_to_end=False)] if parts else []
    if maps > max(1, len(parts)):
        found.append(CandidateView((f"linear_agreement({classes})",), linear_agreement(classes), end_to_end=False))
    return [view.then(one) for one in found]


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
    heads = fitted_heads(model, evidence, x, radius)
    return [view for view in (own, slopes, without_parts(faulty), *heads) if view is not OWN_GRADIENT]


def without_parts(paths: Iterable[str]) -> CandidateView:
    """The model without some parts; the model itself where there are none."""
    candidate = OWN_GRADIENT
    for path in paths:
        candidate = candidate.then(through(bypass, path, end_to_end=False))
    return candidate
