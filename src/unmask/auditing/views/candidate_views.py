"""The candidate views: each replaces the gradient of faulty operations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from unmask.auditing.views.reach import (
    calls,
    cut_off,
    end_to_end_parts,
    ends,
    last_reached,
    logits,
    reached_by_torch,
    reached_by_views,
    responsible,
    same_form,
)
from unmask.diagnosis.probe import GradientProbe
from unmask.diagnosis.snapshots import Token
from unmask.diagnosis.trace import within
from unmask.gradients.bpda import View, bpda, bypass
from unmask.gradients.dequantized import dequantized, is_quantized
from unmask.gradients.finite_gradients import finite_gradients
from unmask.gradients.functions import bpda_function
from unmask.gradients.part_views import median_votes, skip_to, soft_votes, submodule_output
from unmask.gradients.straight_through import narrow_straight_through, straight_through, unrolled
from unmask.gradients.surrogates.finite_differences import finite_differences
from unmask.gradients.surrogates.fit_surrogate import fit_skip, fit_surrogate
from unmask.gradients.surrogates.surrogate_model import fit_head

__all__ = [
    "OWN_GRADIENT",
    "CandidateView",
    "call_source",
    "candidate_views",
    "expensive_views",
    "fitted_views",
    "through",
    "without_parts",
]

_FEW = 64
"""Operations of a part that it may be asked dozens of times for a gradient."""

_ROUNDS = 4
"""How often a part is queried for each image that a surrogate is fitted on, with new noise each time."""

_CALLS = 8
"""Of a part in a pass, up to which each call gets a surrogate of its own."""

_COMPARISONS = {"gt", "ge", "lt", "le", "greater", "greater_equal", "less", "less_equal", "sign", "sgn", "heaviside"}
"""Operations whose surrogate is a smooth step."""

_MOST = 0.5
"""Share of the images without a gradient from which the answer counts as one that no gradient reaches."""

_UNFIT = (ValueError, RuntimeError, AttributeError, IndexError, TypeError)
"""What is raised where a part is given, or gives, no tensor of images or features, so that nothing can be fitted."""

_SMALL = 1024
"""Numbers that go into a part for an image, up to which finite differences see anything in the noise."""


@dataclass(frozen=True)
class CandidateView:
    """A view, and the calls that make it, innermost first, as a script writes them."""

    code: tuple[str, ...] = ()
    view: View | None = field(repr=False, compare=False, default=None)
    end_to_end: bool = True  # whether it computes what the model does, and leaves out no part of it

    @property
    def name(self) -> str:
        """As a report says it."""
        return ", ".join(self.code) or "own gradient"

    def then(self, other: CandidateView) -> CandidateView:
        """This view, and the other one of what it gives."""
        if self.view is None or other.view is None:
            return other if self.view is None else self
        first, second = self.view, other.view
        return CandidateView(
            (*self.code, *other.code), lambda model: second(first(model)), self.end_to_end and other.end_to_end
        )


OWN_GRADIENT = CandidateView()


def _plain(view: View, *, end_to_end: bool = True) -> CandidateView:
    """A view without arguments."""
    return CandidateView((view.__name__,), view, end_to_end)


def through(make: Callable[[Any], View], name: str | Sequence[str], *, end_to_end: bool = True) -> CandidateView:
    """The view that ``make`` makes for the part, or the function, of this name; or for several."""
    return CandidateView((call_source(make.__name__, name),), make(name), end_to_end)


def call_source(view: str, name: str | Sequence[str]) -> str:
    """As Python writes it, whatever the name.

    >>> call_source("bpda", "encode")
    'bpda("encode")'
    """
    return f"{view}({json.dumps(name)})"


def candidate_views(model: nn.Module, evidence: GradientProbe, x: Tensor, classes: int) -> list[CandidateView]:
    """The model's own gradient first; then views of each faulty part alone, and of all of them together.

    ``x`` (B, C, H, W) are images such as the model gets.
    """
    around = [OWN_GRADIENT]
    if evidence.nonfinite.share:
        around.append(_plain(finite_gradients))
    if is_quantized(model):
        around.append(_plain(dequantized, end_to_end=False))
    if evidence.faults or evidence.saturation.zero_gradient > 0:  # no gradient, and perhaps nobody to blame
        alike = [path for path, event in responsible(evidence).items() if same_form(event)]
        inline = _plain(straight_through)
        for name in dict.fromkeys(fault.event.name for fault in evidence.faults if fault.event.custom):
            inline = through(bpda_function, name).then(inline)
        around.append(inline)
        if any(fault.event.name in _COMPARISONS for fault in evidence.faults):
            around.append(_plain(narrow_straight_through))
        parts = OWN_GRADIENT
        for path in alike:
            parts = parts.then(through(bpda, path))
        if parts is not OWN_GRADIENT:
            around += [parts, parts.then(inline)]
        cut = _named(cut_off(evidence, reached_by_torch(evidence)))
        for path in dict.fromkeys((*([cut] if cut else []), *end_to_end_parts(evidence, x))):
            joined = through(skip_to, path)
            around += [joined, joined.then(inline)]
        source = _source(evidence)
        if source is not None:
            code = f"skip_to({json.dumps(cut)}, source={json.dumps(source)})"
            around.append(CandidateView((code,), skip_to(cut, source=source)))
    return [*_and_read(around, evidence, classes), *_votes(evidence, classes)]


def fitted_views(model: nn.Module, evidence: GradientProbe, x: Tensor, classes: int) -> list[CandidateView]:
    """For what those leave: through surrogates that are fitted to faulty parts, or to the code before a part.

    ``x`` (B, C, H, W) are images to fit on.
    """
    if not evidence.faults and evidence.saturation.zero_gradient <= 0:
        return []
    around, cut = [*_fitted(model, evidence, x)], cut_off(evidence, reached_by_torch(evidence))
    if cut:
        around += _skipping(model, cut, _source(evidence), x)
    return _and_read(around, evidence, classes)


def _and_read(views: list[CandidateView], evidence: GradientProbe, classes: int) -> list[CandidateView]:
    """These, and each of them with what has the form of logits for an output."""
    reads = [through(submodule_output, path, end_to_end=False) for path in logits(evidence, classes)]
    return [*views, *(candidate.then(read) for read in reads for candidate in views)]


def _votes(evidence: GradientProbe, classes: int) -> Iterator[CandidateView]:
    """Where the logits of several parts are lost at once: the mean of their probabilities, and the median of leads."""
    answers = {event.part: event.outputs[0].value.shape[1:] for event in calls(evidence) if event.outputs}
    for view, reached in _reaching(evidence):
        parts = [path for path in ends(evidence, reached) if answers[path] == (classes,)]
        if len(parts) > 1:
            for head in (soft_votes, median_votes):
                code = f"submodule_output({json.dumps(parts)}, unmask.{head.__name__}({classes}))"
                votes = CandidateView((code,), submodule_output(parts, head(classes)), end_to_end=False)
                yield view.then(votes)
            return


def _reaching(evidence: GradientProbe) -> Iterator[tuple[CandidateView, set[Token]]]:
    """What gradients reach: by themselves; then past code outside of torch, and where they are disabled."""
    yield OWN_GRADIENT, reached_by_torch(evidence)
    cut = cut_off(evidence, reached_by_views(evidence))
    past = through(skip_to, _named(cut)) if cut else OWN_GRADIENT
    yield past.then(_plain(straight_through)), reached_by_views(evidence, cut)


def _named(parts: Sequence[str]) -> Any:
    """A part as views take it, or several."""
    return parts[0] if len(parts) == 1 else tuple(parts)


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
    own = _plain(unrolled) if inner else OWN_GRADIENT
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
        named = [f", call={call}" if count > 1 else "" for call in fitted]
        made = ", ".join(f"unmask.fit_surrogate(model, {quoted}, x, rounds={_ROUNDS}{call})" for call in named)
        code = f"bpda({quoted}, {made})" if count == 1 else f"bpda({quoted}, [{made}])"
        candidate = candidate.then(CandidateView((code,), bpda(path, surrogates)))
    yield candidate


def _skipping(model: nn.Module, cut: Sequence[str], source: str | None, x: Tensor) -> Iterator[CandidateView]:
    """From parts behind a gap to the images, or to ``source``, the last part before the gap, by a fitted surrogate."""
    first, named = json.dumps(cut[0]), "" if source is None else f", source={json.dumps(source)}"
    try:
        surrogate = fit_skip(model, cut[0], x, source=source)
    except _UNFIT:
        return
    code = f"skip_to({json.dumps(_named(cut))}, unmask.fit_skip(model, {first}, x{named}){named})"
    yield CandidateView((code,), skip_to(_named(cut), surrogate, source))


def _fitted_head(model: nn.Module, evidence: GradientProbe, x: Tensor, radius: float) -> Iterator[CandidateView]:
    """Where no gradient reaches the answer: the last features that it reaches, and a head fitted to the answer."""
    if evidence.parts[-1].event.outputs[0].edge is not None and evidence.saturation.zero_gradient < _MOST:
        return
    for view, reached in _reaching(evidence):
        last, lost = last_reached(evidence, reached), ends(evidence, reached)
        found = [part for part in ((last,) if last else (), lost if len(lost) > 1 else ()) if part]
        for parts in dict.fromkeys(found):
            part = _named(parts)
            try:
                head = fit_head(model if view.view is None else view.view(model), part, x, radius=radius)
            except _UNFIT:
                continue
            quoted = json.dumps(part)
            code = f"submodule_output({quoted}, unmask.fit_head({_applied(view)}, {quoted}, x, radius={radius!r}))"
            yield view.then(CandidateView((code,), submodule_output(part, head), end_to_end=False))
        if found:
            return


def _applied(view: CandidateView) -> str:
    """The view of ``model``, as Python writes it."""
    code = "model"
    for call in view.code:
        code = f"unmask.{call}({code})"
    return code
