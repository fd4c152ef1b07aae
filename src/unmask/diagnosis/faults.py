"""The operations and parts whose gradient is missing or wrong, found by taint analysis of a trace."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from unmask.diagnosis.gradient_fidelity import GradientFidelity, known
from unmask.diagnosis.snapshots import TensorSnapshot, Token
from unmask.diagnosis.trace import Event, within

__all__ = ["GradientFault", "cancelled", "faults"]

_SMOOTH = {"softmax", "log_softmax", "sigmoid", "logsigmoid", "tanh", "exp", "erf", "softplus", "pow", "log"}
"""Functions whose gradient is correct everywhere: if it is useless, it has vanished in float32."""

_EXPLAINED = 0.5
"""A gradient that predicts less than this share of a change, small or as large as an attack's, is useless."""

_CLEAN = 0.75
"""Untainted tensors compensate for the rest if they predict this share of a change: half of an image is too little."""

_FLAT = {"round", "floor", "ceil", "trunc", "fix", "sign", "sgn"}
"""Operations whose own gradient is zero, whatever is hooked to what they make."""

_BOUNDED = 0.35
"""The gradient of a smooth step is useless too if its bounded fidelity at the attack's length is below this."""

_SHAPED = {"view_as", "reshape_as", "expand_as", "type_as"}
"""Operations that take no more than the shape, or the type, of what they are given second."""

_STEPS = {"sigmoid", "tanh", "erf", "exp", "softplus", "logsigmoid"}
"""Smooth functions of each element by itself that may be as flat, or as steep, as a step."""


@dataclass(frozen=True)
class GradientFault:
    """An operation or part whose gradient is missing or wrong.

    If a part disables gradients and calls another part, the place is that of the part that disables them.
    ``missing`` says that the gradient ends there; otherwise it is wrong. ``fidelity`` is by radius, and
    ``right_nearby`` says that the gradient is right at the smallest radius, as for steep but smooth functions.
    """

    event: Event
    missing: bool
    fidelity: dict[float, float]
    right_nearby: bool


def faults(found: Sequence[GradientFidelity]) -> list[GradientFault]:
    """The faulty events of a trace, in order: those whose missing or wrong gradient matters for the model's output.

    A gradient that ends (``detach``, a comparison, numpy) or is wrong (``round``) may be harmless: a mask by a
    comparison may be correct almost everywhere, and a straight-through estimator compensates for its rounding. So the
    outputs of such an event are tainted, and everything that is computed from them, until the gradients of untainted
    tensors predict the change. An event is faulty if its taint reaches the model's output.
    """
    taints, waiting = _Taints(), _Waiting()
    for i, one in enumerate(found):
        if not one.event.outputs:
            waiting.leave(one.event.inputs)
        if one.event.module or not one.event.outputs:
            continue
        inputs = one.event.inputs[:1] if one.event.name in _SHAPED else one.event.inputs
        given = [snapshot for snapshot in inputs if snapshot.token in one.changed]
        made = [snapshot for snapshot in one.event.outputs if snapshot.token in one.changed]
        blamed = frozenset[int]().union(*map(taints.of, given))
        waiting.use(given)
        unseen = [snapshot for snapshot in given if snapshot.edge is None and not taints.of(snapshot)]
        if made and (unseen or not given):  # it comes from where torch does not see, such as numpy
            blamed |= waiting.origins(unseen) or {i}
        clean = {snapshot.token for snapshot in given if snapshot.edge is not None and not taints.of(snapshot)}
        for snapshot in made:
            if snapshot.edge is None:
                taints.add(one, snapshot, blamed | {i} if one.reached else blamed)
                waiting.add(snapshot, taints.of(snapshot))
            elif _wrong(one):
                innocent = blamed and (not one.reached or _overrun(one))
                taints.add(one, snapshot, blamed if innocent else blamed | {i})
            else:
                taints.add(one, snapshot, frozenset() if _right(one, clean) else blamed)
    answer = found[-1].event.outputs if found else ()
    responsible = frozenset[int]().union(*map(taints.of, answer))
    changed = found[-1].changed if found else set[Token]()
    for place, snapshot in enumerate(answer):  # that no operation of torch made: it comes from numpy, say
        if snapshot.edge is None and not taints.knows(snapshot) and (not place or snapshot.token in changed):
            responsible |= waiting.origins([snapshot])
    return [*(_hooked(found, i) for i in sorted(responsible)), *_composed(found, responsible)]


def _hooked(found: Sequence[GradientFidelity], i: int) -> GradientFault:
    """The fault of an operation; of what it made, where a hook on its gradient was put there and it is right itself."""
    fault = _fault(found[i])
    if fault.missing or fault.event.custom or fault.event.name in _FLAT:
        return fault
    made = {snapshot.token for snapshot in fault.event.outputs}
    hooks = (one.event for one in found[i:] if one.event.name == "register_hook")
    return replace(fault, event=next((hook for hook in hooks if hook.inputs[0].token in made), fault.event))


class _Waiting:
    """Tensors without a gradient that no operation has taken: what comes from where torch does not see begins there."""

    def __init__(self) -> None:
        self._held: dict[Token, tuple[int, frozenset[int]]] = {}  # memory, and origins
        self._left: set[Token] = set()  # which numpy, or Python, has taken

    def add(self, snapshot: TensorSnapshot, origins: frozenset[int]) -> None:
        self._held[snapshot.token] = snapshot.storage, origins

    def use(self, given: Iterable[TensorSnapshot]) -> None:
        """An operation takes them."""
        for snapshot in given:
            self._held.pop(snapshot.token, None)

    def leave(self, given: Iterable[TensorSnapshot]) -> None:
        """They become numbers or arrays."""
        self._left |= {snapshot.token for snapshot in given}

    def origins(self, unseen: Sequence[TensorSnapshot]) -> frozenset[int]:
        """Of tensors that no operation has made: of those in the same memory; else of those that left torch; else of
        all. They wait no longer.
        """
        memory = {snapshot.storage for snapshot in unseen}
        same = [token for token, (storage, _) in self._held.items() if storage in memory]
        chosen = same or [token for token in self._held if token in self._left] or [*self._held]
        return frozenset[int]().union(*(self._held.pop(token)[1] for token in chosen))


class _Taints:
    """The origins of a tensor's values, also of values written through another tensor."""

    def __init__(self) -> None:
        self._known: dict[Token, frozenset[int]] = {}
        self._written: dict[int, frozenset[int]] = {}  # by memory
        self._kept: dict[int, frozenset[int]] = {}  # the last tensor in each memory, of which there may be views
        self._made: set[Token] = set()

    def knows(self, snapshot: TensorSnapshot) -> bool:
        """Whether an operation was seen to make it."""
        return snapshot.token in self._made

    def of(self, snapshot: TensorSnapshot) -> frozenset[int]:
        """What no operation has made has been written into, or is a view of another, such as ``x.mT``, or is new."""
        before = self._written.get(snapshot.storage) or self._kept.get(snapshot.storage, frozenset())
        return self._known.setdefault(snapshot.token, before)

    def add(self, one: GradientFidelity, snapshot: TensorSnapshot, blamed: frozenset[int]) -> None:
        """``snapshot`` is an output of ``one``; a sound tensor has no origins."""
        self._made.add(snapshot.token)
        self._known[snapshot.token] = self._kept[snapshot.storage] = blamed
        if blamed and (snapshot.mapped or any(snapshot.token[0] == other.token[0] for other in one.event.inputs)):
            self._written[snapshot.storage] = self._written.get(snapshot.storage, frozenset()) | blamed


def _overrun(one: GradientFidelity) -> bool:
    """Whether its gradient is right where what goes in changes least, as that of a kink that jumps are put into."""
    return one.event.name not in _SMOOTH and _right_at_first(one)


def _right_at_first(one: GradientFidelity) -> bool:
    """At the smallest radius."""
    return next(iter(one.fidelity.values()), 0.0) >= _EXPLAINED


def _right(one: GradientFidelity, clean: set[Token]) -> bool:
    """Whether what is not tainted explains the change of what comes out: nearly all of it at the attack's length; or
    nearby, and half of it at the two largest radii, where an index may change that nothing changes nearby.
    """
    explained = [sum(shares.get(token, 0.0) for token in clean) for shares in one.shares.values()]
    if not explained or max(explained[1:] or explained) < _CLEAN:
        return False
    return explained[-1] >= _CLEAN or min(explained[-2:]) >= _EXPLAINED


def _wrong(one: GradientFidelity) -> bool:
    """At all radii but the smallest, where rounding may speak; or for smooth steps, at the attack's whole length."""
    if not one.fidelity:
        return False
    vanished = one.event.name in _STEPS and list(one.bounded.values())[-1] < _BOUNDED
    return vanished or max(list(one.fidelity.values())[1:] or one.fidelity.values()) < _EXPLAINED


def _fault(one: GradientFidelity) -> GradientFault:
    lost = all(snapshot.edge is None for snapshot in one.event.outputs) or not (_wrong(one) or _nowhere(one))
    event = one.event
    if lost and event.under:
        part, place = event.under
        event = replace(event, part=part, line=place.line, code=place.code, file=place.file)
    return GradientFault(event, lost, one.fidelity, _right_nearby(one))


def _right_nearby(one: GradientFidelity) -> bool:
    """Not where something without a gradient decides, such as a mask: it is a step, however seldom it changes."""
    if any(snapshot.edge is None and snapshot.token in one.changed for snapshot in one.event.inputs):
        return False
    return one.event.name in _SMOOTH or _right_at_first(one)


def _composed(found: Sequence[GradientFidelity], responsible: frozenset[int]) -> list[GradientFault]:
    """Parts whose gradient is wrong though that of each operation in them is right: long or chaotic compositions."""
    out = []
    spoiled = {found[i].event.part for i in responsible}
    wrong = {snapshot.token for i in responsible for snapshot in found[i].event.outputs}
    for one in found[:-1]:
        path = one.event.part
        innocent = not any(within(part, path) for part in spoiled)
        innocent &= not any(snapshot.token in wrong for snapshot in one.event.inputs)  # hooks on these spoil it
        if one.event.module and _nowhere(one) and innocent and one.reached:
            out.append(_fault(one))
            spoiled.add(path)
    return out


def cancelled(
    found: Sequence[GradientFidelity], whole: Callable[[], Iterable[GradientFidelity]]
) -> list[GradientFault]:
    """The place at which a model loses its gradient although each operation and part is correct.

    An example is ``x - x % s``, where slopes of 1 add up to 0. ``whole`` gives the events in order, each with the
    fidelity of the gradients from there back to the images.
    """
    if not _nowhere(found[-1]):
        return []
    lost = (one for alone, one in zip(found, whole(), strict=True) if _nowhere(one) and not _nowhere(alone))
    return [_fault(one) for one in itertools.islice(lost, 1)]


def _nowhere(one: GradientFidelity) -> bool:
    return bool(one.fidelity) and not known(one.fidelity)
