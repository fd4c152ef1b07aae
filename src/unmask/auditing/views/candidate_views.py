"""The candidate views: each replaces the gradient of faulty operations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from unmask.diagnosis.probe import GradientProbe
from unmask.diagnosis.trace import Event, outermost, within
from unmask.gradients.bpda import View, bpda, bypass
from unmask.gradients.dequantized import dequantized, is_quantized
from unmask.gradients.finite_gradients import finite_gradients
from unmask.gradients.functions import bpda_function
from unmask.gradients.part_views import skip_to, soft_votes, submodule_output
from unmask.gradients.straight_through import narrow_straight_through, straight_through, unrolled
from unmask.gradients.surrogates.finite_differences import finite_differences
from unmask.gradients.surrogates.fit_surrogate import fit_skip, fit_surrogate
from unmask.gradients.surrogates.surrogate_model import fit_head

__all__ = [
    "OWN_GRADIENT",
    "CandidateView",
    "call_source",
    "candidate_views",
    "end_to_end_parts",
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

_FRONTIER = 16
"""Parts whose features a head may take together."""

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


def through(make: Callable[[str], View], name: str, *, end_to_end: bool = True) -> CandidateView:
    """The view that ``make`` makes for the part, or the function, of this name."""
    return CandidateView((call_source(make.__name__, name),), make(name), end_to_end)


def call_source(view: str, name: str) -> str:
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
        alike = [path for path, event in _responsible(evidence).items() if _same_form(event)]
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
        cut = _cut_off(evidence)
        for path in dict.fromkeys((*cut, *end_to_end_parts(evidence, x))):
            joined = through(skip_to, path)
            around += [joined, joined.then(inline)]
        source = _last_reached(evidence, cut[0]) if cut else None
        if source is not None:
            code = f"skip_to({json.dumps(cut[0])}, source={json.dumps(source)})"
            around.append(CandidateView((code,), skip_to(cut[0], source=source)))
    return [*_and_read(around, evidence, classes), *_votes(evidence, classes)]


def fitted_views(model: nn.Module, evidence: GradientProbe, x: Tensor, classes: int) -> list[CandidateView]:
    """For what those leave: through surrogates that are fitted to faulty parts, or to the code before a part.

    ``x`` (B, C, H, W) are images to fit on.
    """
    if not evidence.faults and evidence.saturation.zero_gradient <= 0:
        return []
    around, cut = [*_fitted(model, evidence, x)], _cut_off(evidence)
    if cut:
        around += _skipping(model, cut[0], _last_reached(evidence, cut[0]), x)
    return _and_read(around, evidence, classes)


def _and_read(views: list[CandidateView], evidence: GradientProbe, classes: int) -> list[CandidateView]:
    """These, and each of them with what has the form of logits for an output."""
    reads = [through(submodule_output, path, end_to_end=False) for path in _logits(evidence, classes)]
    return [*views, *(candidate.then(read) for read in reads for candidate in views)]


def _votes(evidence: GradientProbe, classes: int) -> Iterator[CandidateView]:
    """Where the logits of several parts are lost at once: the mean of their probabilities."""
    answers = {event.part: event.outputs[0].value.shape[1:] for event in _calls(evidence) if event.outputs}
    parts = [path for path in _ends(evidence) if answers[path] == (classes,)]
    if len(parts) > 1:
        code = f"submodule_output({json.dumps(parts)}, unmask.soft_votes({classes}))"
        yield CandidateView((code,), submodule_output(parts, soft_votes(classes)), end_to_end=False)


def expensive_views(model: nn.Module, evidence: GradientProbe, x: Tensor, radius: float) -> list[CandidateView]:
    """For what all others leave: through the gradients that the model takes itself, if any; finite differences through
    faulty parts that are small; the model without them; features with a head that is fitted to the answers.

    ``x`` (B, C, H, W) are images to fit on, and ``radius`` is that of attacks, per pixel, root mean square.
    """
    inner = any(one.event.inner for one in evidence.parts)
    faulty = {path: event for path, event in _responsible(evidence).items() if event.inputs}
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


def _responsible(evidence: GradientProbe) -> dict[str, Event]:
    """The outermost faulty parts that gradients would reach, each with a call of it."""
    outer = outermost(fault.event.part for fault in evidence.faults if fault.event.part)
    reached = [event for event in _calls(evidence) if any(given.edge is not None for given in event.inputs)]
    calls = {event.part: event for event in reversed(reached)}
    return {path: calls[path] for path in outer if path in calls}


def _calls(evidence: GradientProbe) -> list[Event]:
    """Calls of the model's parts, without that of the model itself."""
    return [one.event for one in evidence.parts if one.event.module and one.event.part]


def _same_form(event: Event) -> bool:
    """Whether the identity will do for a part: it gives the form of what it is given, or images of another size, or
    copies of either, or their mean.
    """
    if not event.inputs or not event.outputs:
        return False
    given, made = event.inputs[0].value, event.outputs[0].value
    copies = bool(len(given) and len(made)) and 0 in (len(given) % len(made), len(made) % len(given))
    resized = given.ndim == made.ndim == 4 and given.shape[1] == made.shape[1]
    return copies and (given.shape[1:] == made.shape[1:] or resized)


def _fitted(model: nn.Module, evidence: GradientProbe, x: Tensor) -> Iterator[CandidateView]:
    """Through surrogates of faulty parts: one for each call, or, of a part that is called often, one for all calls."""
    candidate = OWN_GRADIENT
    for path in _responsible(evidence):
        shapes = [event.inputs[0].value.shape for event in _calls(evidence) if event.part == path and event.inputs]
        calls = len(shapes) if len(shapes) <= _CALLS else len(set(shapes))
        if calls > 1 and len(shapes) > _CALLS:
            return
        fitted = range(calls)
        try:
            surrogates = [fit_surrogate(model, path, x, rounds=_ROUNDS, call=call) for call in fitted]
        except (ValueError, RuntimeError, AttributeError, IndexError, TypeError):
            return  # a part whose input or output is no tensor of images or features
        quoted = json.dumps(path)
        named = [f", call={call}" if calls > 1 else "" for call in fitted]
        made = ", ".join(f"unmask.fit_surrogate(model, {quoted}, x, rounds={_ROUNDS}{call})" for call in named)
        code = f"bpda({quoted}, {made})" if calls == 1 else f"bpda({quoted}, [{made}])"
        candidate = candidate.then(CandidateView((code,), bpda(path, surrogates)))
    yield candidate


def _skipping(model: nn.Module, path: str, source: str | None, x: Tensor) -> Iterator[CandidateView]:
    """From a part behind a gap to the images, or to ``source``, the last part before the gap, by a fitted surrogate."""
    quoted, named = json.dumps(path), "" if source is None else f", source={json.dumps(source)}"
    try:
        surrogate = fit_skip(model, path, x, source=source)
    except (ValueError, RuntimeError, AttributeError, IndexError, TypeError):
        return  # a part that is given no tensor of images or features
    code = f"skip_to({quoted}, unmask.fit_skip(model, {quoted}, x{named}){named})"
    yield CandidateView((code,), skip_to(path, surrogate, source))


def _fitted_head(model: nn.Module, evidence: GradientProbe, x: Tensor, radius: float) -> Iterator[CandidateView]:
    """Where no gradient reaches the answer: the last features that it reaches, and a head fitted to the answer."""
    if evidence.parts[-1].event.outputs[0].edge is not None:
        return
    last, ends = _last_reached(evidence), _ends(evidence)
    for parts in dict.fromkeys(((last,) if last else (), ends if len(ends) > 1 else ())):
        if not parts:
            continue
        part = parts[0] if len(parts) == 1 else parts
        try:
            head = fit_head(model, part, x, radius=radius)
        except (ValueError, RuntimeError, AttributeError, IndexError, TypeError):
            continue  # what a part gives is no tensor of features
        quoted = json.dumps(part)
        code = f"submodule_output({quoted}, unmask.fit_head(model, {quoted}, x, radius={radius!r}))"
        yield CandidateView((code,), submodule_output(part, head), end_to_end=False)


def _ends(evidence: GradientProbe) -> tuple[str, ...]:
    """Parts whose outputs a gradient reaches, and which an operation takes that gives something without one."""
    made = {held.token: event.part for event in _calls(evidence) for held in event.outputs if held.edge is not None}
    lost = [one.event for one in evidence.parts if not one.event.module and _loses(one.event)]
    found = dict.fromkeys(made[held.token] for event in lost for held in event.inputs if held.token in made)
    return (*outermost(found),)[:_FRONTIER]


def _loses(event: Event) -> bool:
    return bool(event.outputs) and all(held.edge is None for held in event.outputs)


def _last_reached(evidence: GradientProbe, before: str | None = None) -> str | None:
    """The last part whose output gradients reach and images change; before the first call of another part."""
    last = None
    for one in evidence.parts:
        event = one.event
        if before is not None and within(event.part, before):
            break
        if event.module and event.part and len(event.outputs) == 1:
            (made,) = event.outputs
            last = event.part if made.edge is not None and made.token in one.changed else last
    return last


def _cut_off(evidence: GradientProbe) -> list[str]:
    """Parts of the model itself that get something that changes and that no gradient reaches, first ones only."""
    for one in evidence.parts:
        event = one.event
        if event.module and event.part and event.inputs:
            first = event.inputs[0]
            if first.edge is None and first.token in one.changed and first.value.is_floating_point():
                return [_outermost(evidence, event)]
    return []


def end_to_end_parts(evidence: GradientProbe, x: Tensor) -> list[str]:
    """The largest part that takes images (B, C, H, W) and gives what the model does, where there is one."""
    answer = [held.value.shape for held in evidence.parts[-1].event.outputs[:1]]
    events = [event for event in _calls(evidence) if [held.value.shape for held in event.outputs] == answer]
    paths = [event.part for event in events if event.inputs and event.inputs[0].value.shape[1:] == x.shape[1:]]
    return [min(paths, key=len)] if paths else []


def _outermost(evidence: GradientProbe, inner: Event) -> str:
    """The largest part that is given the same tensor."""
    token = inner.inputs[0].token
    return min((e.part for e in _calls(evidence) if e.inputs and e.inputs[0].token == token), key=len)


def _logits(evidence: GradientProbe, classes: int) -> list[str]:
    """Parts, not the model itself, whose output has the form of logits, while something is made of it later."""
    answer = evidence.parts[-1].event.outputs[0].token
    single = [event for event in _calls(evidence) if len(event.outputs) == 1]
    found = [event for event in single if event.outputs[0].value.shape[1:] == (classes,)]
    last = {event.outputs[0].token: event for event in found if event.outputs[0].token != answer}
    paths = dict.fromkeys(min((e.part for e in found if e.outputs[0].token == t), key=len) for t in last)
    return list(paths)[-2:]
