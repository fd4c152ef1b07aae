"""Whether a model's outputs depend on earlier queries: on similar images, or on their number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unmask.diagnosis.behaviour.neighbours import near, unlike
from unmask.diagnosis.instrumentation import keyed_query, preserve_buffers, share
from unmask.kinds import FindingKind
from unmask.randomness import Keys
from unmask.records import Finding
from unmask.state import State
from unmask.types import Output

__all__ = ["aged", "counts_calls", "differ", "remembers"]

_DIFFERS = 1e-3
"""A change of a logit, as a share of the logits' spread, that no rounding explains."""

_IMAGES, _LIKE, _CALLS = 4, 4, 8
"""Images that are asked about; images like each of them in a call before; such calls."""

_REMEDY = "do not let the output depend on earlier calls"


@torch.no_grad()
def remembers(model: nn.Module, x: Tensor, keys: Keys) -> Finding | None:
    """A finding of kind "memory" where the answers to images (B, C, H, W) differ after similar ones and after others.

    The model comes out as it went in, as far as its state lies in Python objects. None as well for a model whose
    state no call changes, and for one that answers differently after the same calls: it is random, and not by torch.
    """
    x, asked = x[:_IMAGES], keys.select(torch.arange(len(x[:_IMAGES])))
    first = keys.select(torch.zeros(1, dtype=torch.int64))

    def after(shown: Callable[[Tensor, int, Keys], Tensor]) -> Output:
        with preserve_buffers(model):
            for call in range(_CALLS):
                keyed_query(model, shown(x, _LIKE, first.fold_in(call)), keys)
            return keyed_query(model, x, asked)

    state = State(model)
    keyed_query(model, unlike(x, _LIKE, first), keys)
    if not state.restore():
        return None
    similar, others = after(near), after(unlike)
    moved = differ(similar, others)
    if not moved.any() or differ(similar, after(near)).any() or differ(others, after(unlike)).any():
        return None
    return Finding(
        kind=FindingKind.MEMORY,
        module="",
        where="the model's answer depends on earlier ones: it differs after similar images and after others",
        evidence={"images": share(moved), "other answers": share(similar.logits.argmax(1) != others.logits.argmax(1))},
        remedy=_REMEDY,
    )


@torch.no_grad()
def counts_calls(model: nn.Module, x: Tensor, keys: Keys) -> Finding | None:
    """A finding of kind "memory" where the answers to the same images of noise differ from call to call, the same way
    after each restart from the present state: as of networks that take turns.

    ``x`` (B, C, H, W) gives the form of the images; on clean ones, such networks may agree. The model comes out as it
    went in. None for a model whose state no call changes, and for one of which two restarts differ.
    """
    asked = keys.select(torch.arange(len(x[:_IMAGES])))
    noise = unlike(x[:_IMAGES], _LIKE, keys.select(torch.zeros(1, dtype=torch.int64)))[: len(asked.rows)]

    def calls() -> list[Output]:
        with preserve_buffers(model):
            return [keyed_query(model, noise, asked) for _ in range(_CALLS)]

    state = State(model)
    keyed_query(model, noise, asked)
    if not state.restore():
        return None
    once = calls()
    moved = torch.stack([differ(once[0], later) for later in once[1:]]).any(0)
    if not moved.any() or any(differ(*pair).any() for pair in zip(once, calls(), strict=True)):
        return None
    return Finding(
        kind=FindingKind.MEMORY,
        module="",
        where="the model's answer depends on the number of earlier calls",
        evidence={"images of noise": share(moved)},
        remedy=_REMEDY,
    )


@torch.no_grad()
def aged(model: nn.Module, loaded: State, x: Tensor, keys: Keys) -> Finding | None:
    """A finding of kind "memory" where answers to images (B, C, H, W) are no more those of ``loaded``, an earlier
    state, which the model is left in. None for a model of which two answers in a row differ.
    """
    now, again = keyed_query(model, x, keys), keyed_query(model, x, keys)
    loaded.restore()
    moved = differ(now, keyed_query(model, x, keys))
    loaded.restore()
    if not moved.any() or differ(now, again).any():
        return None
    return Finding(
        kind=FindingKind.MEMORY,
        module="",
        where="the model's answer depends on earlier ones: it is no more that of the model as it was loaded",
        evidence={"images": share(moved)},
        remedy=_REMEDY,
    )


def differ(one: Output, other: Output) -> Tensor:
    """Whether (B,) two answers to the same image differ by more than rounding explains."""
    a, b = one.logits.double(), other.logits.double()
    moved = (a - b).abs().amax(1) > _DIFFERS * a.std().clamp_min(1e-12)
    if one.reject is None or other.reject is None:
        return moved
    return moved | ((one.reject > 0) != (other.reject > 0))
