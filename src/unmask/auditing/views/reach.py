"""Which parts of a model gradients reach, with and without views, and where what they reach is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from torch import Tensor

from unmask.diagnosis.probe import GradientProbe
from unmask.diagnosis.snapshots import TensorSnapshot, Token
from unmask.diagnosis.trace import Event, outermost, within
from unmask.gradients.parts.linear_output import LINEAR_MAPS

__all__ = [
    "agreeing_maps",
    "calls",
    "cut_off",
    "end_to_end_parts",
    "ends",
    "features",
    "last_reached",
    "logit_calls",
    "logits",
    "reached_by_torch",
    "reached_by_views",
    "responsible",
    "same_form",
    "source_of_gap",
]

_FRONTIER = 16
"""Parts whose features a head may take together."""

_SMALL = 1024
"""Numbers that a part gives for an image, up to which they are features."""

_HOOKS = ("register_hook", "retain_grad")
"""Operations on tensors that make nothing."""


def calls(evidence: GradientProbe) -> list[Event]:
    """Calls of the model's parts, without that of the model itself."""
    return [one.event for one in evidence.parts if one.event.module and one.event.part]


def reached_by_torch(evidence: GradientProbe) -> set[Token]:
    """The tensors that gradients reach."""
    held = (one for part in evidence.parts for one in (*part.event.inputs, *part.event.outputs))
    return {one.token for one in held if one.edge is not None}


def reached_by_views(evidence: GradientProbe, behind: Sequence[str] = ()) -> set[Token]:
    """The tensors that gradients reach through ``straight_through``, and ``skip_to`` to the parts ``behind`` a gap.

    These are all that operations of torch make of the images, and of what those parts are given, whether gradients are
    enabled or not, as long as they are floats.
    """
    starts = [evidence.parts[-1].event, *(event for event in calls(evidence) if event.part in behind)]
    reached = {one.token for event in starts for one in event.inputs[:1]}
    for event in (part.event for part in evidence.parts):
        if any(one.token in reached for one in event.inputs):
            reached |= {one.token for one in event.outputs if one.value.is_floating_point()}
    return reached


def responsible(evidence: GradientProbe) -> dict[str, Event]:
    """The outermost faulty parts that gradients would reach, each with a call of it."""
    outer = outermost(fault.event.part for fault in evidence.faults if fault.event.part)
    reached = [event for event in calls(evidence) if any(given.edge is not None for given in event.inputs)]
    called = {event.part: event for event in reversed(reached)}
    return {path: called[path] for path in outer if path in called}


def same_form(event: Event) -> bool:
    """Whether the identity will do for a part: it gives the form of what it is given, or images of another size, or
    copies of either, or their mean.
    """
    if not event.inputs or not event.outputs:
        return False
    given, made = event.inputs[0].value, event.outputs[0].value
    copies = bool(len(given) and len(made)) and 0 in (len(given) % len(made), len(made) % len(given))
    resized = given.ndim == made.ndim == 4 and given.shape[1] == made.shape[1]
    return copies and (given.shape[1:] == made.shape[1:] or resized)


def ends(evidence: GradientProbe, reached: set[Token]) -> tuple[str, ...]:
    """Parts whose outputs are ``reached``, and which an operation takes that gives something that is not."""
    made = {held.token: event.part for event in calls(evidence) for held in event.outputs if held.token in reached}
    lost = [one.event for one in evidence.parts if not one.event.module and _loses(one.event, reached)]
    found = dict.fromkeys(made[held.token] for event in lost for held in event.inputs if held.token in made)
    return (*outermost(found),)[:_FRONTIER]


def _loses(event: Event, reached: set[Token]) -> bool:
    """Whether an operation makes something else of what it is given: numbers of Python's, numpy's arrays, labels."""
    return event.name not in _HOOKS and not any(held.token in reached for held in event.outputs)


def last_reached(evidence: GradientProbe, reached: set[Token], before: str | None = None) -> str | None:
    """The last part whose output is ``reached`` and images change; before the first call of another part."""
    last = None
    for one in evidence.parts:
        event = one.event
        if before is not None and within(event.part, before):
            break
        if event.module and event.part and len(event.outputs) == 1:
            (made,) = event.outputs
            last = event.part if made.token in reached and made.token in one.changed else last
    return last


def source_of_gap(evidence: GradientProbe) -> str | None:
    """The last part that gradients reach before those that they do not, where there are such."""
    reached = reached_by_torch(evidence)
    cut = cut_off(evidence, reached)
    return last_reached(evidence, reached, cut[0]) if cut else None


def features(evidence: GradientProbe, reached: set[Token]) -> tuple[str, ...]:
    """The outermost parts that give one tensor of a few numbers, which is ``reached`` and changes with the images."""
    answer = evidence.parts[-1].event.outputs[0].value
    found = list[str]()
    for one in evidence.parts:
        event = one.event
        if event.module and event.part and len(event.outputs) == 1:
            (made,) = event.outputs
            small = len(made.value) >= len(answer) and made.value.numel() <= _SMALL * len(answer)
            if small and made.token in reached and made.token in one.changed:
                found.append(event.part)
    return (*outermost(found),)[:_FRONTIER]


def logit_calls(evidence: GradientProbe, reached: set[Token], classes: int) -> tuple[str, ...]:
    """The outermost parts that give logits of all images, in a call or in calls of a few, which are ``reached`` and
    change with the images; none where all images are given once alone.
    """
    images, rows = len(evidence.parts[-1].event.outputs[0].value), Counter[str]()
    for one in evidence.parts:
        event = one.event
        if event.module and event.part and len(event.outputs) == 1:
            (made,) = event.outputs
            form = made.value.ndim == 2 and made.value.shape[1] == classes
            if form and made.token in reached and (made.token in one.changed or len(made.value) < images):
                rows[event.part] += len(made.value)
    parts = [path for path in outermost(rows) if rows[path] % images == 0]
    return (*parts,)[:_FRONTIER] if sum(rows[path] for path in parts) > images else ()


def cut_off(evidence: GradientProbe, reached: set[Token]) -> list[str]:
    """The first part of the model itself that gets something that changes and is not ``reached``, and all others that
    are given the same.
    """
    for one in evidence.parts:
        event = one.event
        if event.module and event.part and event.inputs:
            first = event.inputs[0]
            if first.token not in reached and first.token in one.changed and first.value.is_floating_point():
                given = [e for e in calls(evidence) if e.inputs and e.inputs[0].token == first.token]
                changing = [e for e in given if first.token not in {made.token for made in e.outputs}]
                return outermost(e.part for e in changing or given)
    return []


def end_to_end_parts(evidence: GradientProbe, x: Tensor) -> list[str]:
    """The largest part that takes images (B, C, H, W) and gives what the model does, where there is one."""
    answer = [held.value.shape for held in evidence.parts[-1].event.outputs[:1]]
    events = [event for event in calls(evidence) if [held.value.shape for held in event.outputs] == answer]
    paths = [event.part for event in events if event.inputs and event.inputs[0].value.shape[1:] == x.shape[1:]]
    return [min(paths, key=len)] if paths else []


def logits(evidence: GradientProbe, classes: int) -> list[str]:
    """Parts, not the model itself, whose output has the form of logits, while something is made of it later.

    Parts that get all images come before those that get some of them, as later exits do.
    """
    answer = evidence.parts[-1].event.outputs[0]
    single = [event for event in calls(evidence) if len(event.outputs) == 1]
    found = [event for event in single if event.outputs[0].value.shape[1:] == (classes,)]
    rows = Counter[str]()
    for event in found:
        rows[event.part] += len(event.outputs[0].value)
    found = [event for event in found if rows[event.part] >= len(answer.value)] or found
    last = {event.outputs[0].token: event for event in found if event.outputs[0].token != answer.token}
    paths = dict.fromkeys(min((e.part for e in found if e.outputs[0].token == t), key=len) for t in last)
    return list(paths)[-2:]


def maps_to_logits(evidence: GradientProbe, classes: int) -> bool:
    """Whether the model's code has a linear map of all images to logits, of which something else is made later."""
    answer = evidence.parts[-1].event.outputs[0]
    return any(made.token != answer.token for made in _maps(evidence, classes))


def agreeing_maps(evidence: GradientProbe, reached: set[Token], classes: int) -> int:
    """The linear maps of all images to logits, which are ``reached``."""
    return sum(made.token in reached for made in _maps(evidence, classes))


def _maps(evidence: GradientProbe, classes: int) -> Iterator[TensorSnapshot]:
    """What linear maps of all images to logits give."""
    images = len(evidence.parts[-1].event.outputs[0].value)
    for event in (one.event for one in evidence.parts):
        if not event.module and event.name in LINEAR_MAPS:
            yield from (made for made in event.outputs if made.value.shape == (images, classes))
