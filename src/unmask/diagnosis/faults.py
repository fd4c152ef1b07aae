"""Where a model's gradients go wrong: the operations and parts that lose them, by following tensors through a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unmask.diagnosis.trace import Event, Token, within
from unmask.diagnosis.transmission import Transmission, known

__all__ = ["EXPLAINED", "Fault", "faults"]

_SMOOTH = {"softmax", "log_softmax", "sigmoid", "logsigmoid", "tanh", "exp", "erf", "softplus", "pow", "log"}
"""Functions whose gradient is right everywhere: where it tells nothing, it has vanished in float32."""

EXPLAINED = 0.5
"""A gradient that knows of less than this of a change, be it small or as large as an attack's, is of no use."""

_BOUNDED = 0.35
"""Nor is that of a smooth step which, bounded, knows of less than this at the attack's length."""

_STEPS = {"sigmoid", "tanh", "erf", "exp", "softplus", "logsigmoid"}
"""Smooth functions of each element by itself that may be as flat, or as steep, as a step."""


@dataclass(frozen=True)
class Fault:
    """An operation or part whose gradient is missing or wrong.

    ``lost`` says that gradients end there, otherwise they come out wrong; ``explained`` is by radius, and
    ``smallest`` whether the gradient is right at the smallest radius, as of steep but smooth functions.
    """

    event: Event
    lost: bool
    explained: dict[float, float]
    right_nearby: bool


def faults(found: Sequence[Transmission]) -> list[Fault]:
    """The guilty among the events of a trace, in order: those whose loss is felt in what the model answers.

    Where a gradient ends (``detach``, a comparison, numpy) or is wrong (``round``), nothing is wrong yet: a mask by a
    comparison may be right almost everywhere, and a straight-through estimator makes up for what it rounds. So
    what comes of such an event is followed, as tainted, through all that is made of it, until something changes in a
    way that the gradients of what is not tainted explain. Who taints the answer is guilty.
    """
    taints: dict[Token, frozenset[int]] = {}
    waiting: list[int] = []  # events where gradients ended, and that nothing has been made of yet
    for i, one in enumerate(found):
        if one.event.module:
            continue
        given = [held for held in one.event.given if held.token in one.changed]
        made = [held for held in one.event.made if held.token in one.changed]
        blamed = frozenset[int]().union(*(taints.get(held.token, frozenset()) for held in given))
        waiting = [w for w in waiting if w not in blamed]
        unseen = [held for held in given if held.edge is None and held.token not in taints]
        if made and (unseen or not given):  # it comes from where torch does not see, such as numpy
            blamed |= frozenset(waiting) or {i}
            waiting = []
        clean = {held.token for held in given if held.edge is not None and held.token not in taints}
        for held in made:
            if held.edge is None:
                taints[held.token] = blamed | {i} if clean else blamed
                waiting += [i] if clean else []
            elif _wrong(one):
                taints[held.token] = blamed | {i} if _own(one) or not blamed else blamed
            elif blamed and not _right(one, clean):
                taints[held.token] = blamed
    answer = found[-1].event.made if found else ()
    guilty = frozenset[int]().union(*(taints.get(held.token, frozenset()) for held in answer))
    return [*(_fault(found[i]) for i in sorted(guilty)), *_composed(found, guilty)]


def _own(one: Transmission) -> bool:
    """Whether gradients go in and come out, so that it is the operation itself that makes them wrong."""
    return any(held.edge is not None and held.token in one.changed for held in one.event.given)


def _right(one: Transmission, clean: set[Token]) -> bool:
    """Whether what is not tainted explains the change of what comes out."""
    shares = list(one.shares.values())
    return max((sum(s.get(t, 0.0) for t in clean) for s in shares[1:] or shares), default=0.0) >= EXPLAINED


def _wrong(one: Transmission) -> bool:
    """At all radii but the smallest, where rounding may speak; or for smooth steps, at the attack's whole length."""
    if not one.explained:
        return False
    vanished = one.event.name in _STEPS and list(one.bounded.values())[-1] < _BOUNDED
    return vanished or max(list(one.explained.values())[1:] or one.explained.values()) < EXPLAINED


def _fault(one: Transmission) -> Fault:
    lost = all(held.edge is None for held in one.event.made)
    return Fault(one.event, lost, one.explained, _right_nearby(one))


def _right_nearby(one: Transmission) -> bool:
    return one.event.name in _SMOOTH or next(iter(one.explained.values()), 0.0) >= EXPLAINED


def _composed(found: Sequence[Transmission], guilty: frozenset[int]) -> list[Fault]:
    """Parts whose gradient is wrong though that of each operation in them is right: long or chaotic compositions."""
    out = []
    spoiled = {found[i].event.part for i in guilty}
    for one in found[:-1]:
        path = one.event.part
        nowhere = bool(one.explained) and not known(one.explained)
        innocent = not any(within(part, path) for part in spoiled)
        if one.event.module and nowhere and innocent and _own(one):
            out.append(_fault(one))
            spoiled.add(path)
    return out
