"""Whether a model's output for an image is always the same: alone or among others, once or twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from unmask.diagnosis.behaviour.clock import by_the_clock
from unmask.diagnosis.behaviour.memory import differ
from unmask.diagnosis.behaviour.neighbours import near, unlike
from unmask.diagnosis.instrumentation import ModuleIO, keyed_query, preserve_buffers, record_io, share
from unmask.kinds import FindingKind
from unmask.randomness import Keys
from unmask.records import Finding
from unmask.state.deep_copy import deep_copy
from unmask.types import Output

__all__ = ["crowded", "left_in_training", "parts_in_training", "random_elsewhere", "steadiness"]

_DIFFERS = 1e-3
"""A change of a logit, as a share of the logits' spread, that no rounding explains."""

_ROWS = 0.25
"""Share of the images whose answers must differ: a rounding inside the model may flip by itself for a few."""

_DRAWS = 8
"""Draws of a random model's answers that are compared."""


def steadiness(model: nn.Module, x: Tensor, keys: Keys) -> list[Finding]:
    """Of kinds "training mode" (of some parts), "clock", "random", "unrepeatable" (random, not by torch), "batch"."""
    answers, again = keyed_query(model, x, keys), keyed_query(model, x, keys)
    if not torch.equal(answers.logits, again.logits):
        return [*_training(model, x, keys), *by_the_clock(model, x, keys), *_unrepeatable(answers, again)]
    others = [keyed_query(model, x, keys.fold_in(draw)) for draw in range(_DRAWS)]
    drawn = torch.stack([_moved(answers, other) for other in others]).amax(0)
    of_batch = [*_batch(model, x, keys, drawn)] or [*crowded(model, x, keys)]
    return [*_training(model, x, keys), *by_the_clock(model, x, keys), *_random(answers, others), *of_batch]


def left_in_training(model: nn.Module, evaluated: nn.Module, x: Tensor, keys: Keys) -> Finding:
    """That ``model`` was left in training mode, and what that does beside ``evaluated``, its copy that was not."""
    with torch.no_grad(), preserve_buffers(model):
        one, other = (keyed_query(which, x, keys).logits.argmax(1) for which in (model, evaluated))
    return Finding(
        kind=FindingKind.TRAINING_MODE,
        module="",
        where="the whole model; it is audited in evaluation mode",
        evidence={"other answers": share(one != other)},
        remedy="call model.eval()",
    )


def parts_in_training(model: nn.Module, x: Tensor, keys: Keys) -> list[str]:
    """Paths of the parts in training mode, "the model" for itself; none where evaluation mode gives the same answers.

    Some layers, such as those of torch's static quantisation, call themselves training whatever was asked of them.
    """
    parts = [path or "the model" for path, part in model.named_modules() if part.training]
    if not parts:
        return []
    with torch.no_grad(), preserve_buffers(model):
        one, other = (keyed_query(which, x, keys).logits for which in (model, deep_copy(model).eval()))
    return [] if torch.equal(one, other) else parts


def _training(model: nn.Module, x: Tensor, keys: Keys) -> Iterator[Finding]:
    parts = parts_in_training(model, x, keys)
    if parts:
        yield Finding(
            kind=FindingKind.TRAINING_MODE,
            module=parts[0],
            where="not changed, since the model itself is in evaluation mode",
            evidence={"parts": len(parts)},
            remedy="call model.eval(), unless this is intended",
        )


def _unrepeatable(one: Output, other: Output) -> list[Finding]:
    return [
        Finding(
            kind=FindingKind.UNREPEATABLE,
            module="",
            where="the model's answer: it differs though all of torch's randomness is the same",
            evidence={"other answers": share(one.logits.argmax(1) != other.logits.argmax(1))},
            remedy="draw random numbers by torch, and keep no state between calls, so that results can be repeated",
        )
    ]


def _random(answers: Output, others: Sequence[Output]) -> Iterator[Finding]:
    if all(torch.equal(answers.logits, other.logits) for other in others):
        return
    flips = torch.stack([other.logits.argmax(1) != answers.logits.argmax(1) for other in others])
    change = _round(max(_moved(answers, other).max() for other in others))
    yield _drawn(
        "the model's answer: it differs from draw to draw", **{"other answers": share(flips), "change": change}
    )


def random_elsewhere() -> Finding:
    """That answers differ between draws though they do not at clean images, as those of a unanimous vote."""
    return _drawn("the model's answer: it differs from draw to draw between images of different classes")


def _drawn(where: str, **evidence: float) -> Finding:
    remedy = "not an error: results are averaged over fresh draws"
    return Finding(kind=FindingKind.RANDOM, module="", where=where, evidence=evidence, remedy=remedy)


def _batch(model: nn.Module, x: Tensor, keys: Keys, drawn: Tensor) -> Iterator[Finding]:
    """Each image among the others, among copies of itself, and at another place: the same number of rows each time.

    ``drawn`` (B,) is by how much other draws move the answers. Draws that are not torch's cannot be given to the same
    image at another place, nor those that all rows share. Where copies of one image are answered differently, or an
    image by its own draws among others with other draws, only more than twice as much counts.
    """
    rows = torch.arange(len(x), device=x.device)
    with record_io(model) as among:
        whole = keyed_query(model, x, keys)
    turned = rows.roll(1)
    permuted = keyed_query(model, x[turned], keys.select(turned))
    shifts, least = _moved(whole, permuted, turned), torch.full_like(drawn, _DIFFERS)
    flips = whole.logits.argmax(1)[turned] != permuted.logits.argmax(1)
    place = ""
    for row in rows.tolist():
        copies = torch.full_like(rows, row)
        with record_io(model) as alone:
            single = keyed_query(model, x[copies], keys.select(copies))
        apart = _moved(single, single, torch.zeros_like(rows)).max()
        if drawn[row] > _DIFFERS:  # noise of weights, say, is drawn by the keys of all rows
            apart = torch.maximum(apart, _moved(whole, keyed_query(model, x, keys.select(copies)))[row])
        if float(apart) > _DIFFERS:
            least[row] = max(_DIFFERS, 2 * float(drawn[row]))
        shift = _moved(whole, single, copies)[:1]
        shifts, flips = torch.cat((shifts, shift)), torch.cat((flips, _other(whole, single, row)))
        place = place or (_parting(among, alone, row) if shift > least[row] else "")
    if share(shifts > torch.cat((least[turned], least))) >= _ROWS:
        yield Finding(
            kind=FindingKind.BATCH,
            module=place,
            where="the output for an example depends on the other examples of the batch",
            evidence={"other answers": share(flips), "change": _round(shifts.max())},
            remedy="compute the output for each example independently",
        )


def crowded(model: nn.Module, x: Tensor, keys: Keys, count: int = 8) -> Iterator[Finding]:
    """A finding of kind "batch" where the output for an image depends on similar images in the batch.

    Each of the first ``count`` images comes first in a batch of images like it, and in one of others. The draws are the
    same.
    """
    first, moved, flips = keys.select(torch.zeros(1, dtype=torch.int64)), [], []
    for row in range(min(count, len(x))):
        one = x[row : row + 1]
        crowd, strangers = (
            keyed_query(model, torch.cat((one, others(one, len(x) - 1, first.fold_in(row)))), keys)
            for others in (near, unlike)
        )
        moved.append(differ(crowd, strangers)[0])
        flips.append(_other(crowd, strangers, 0))
    if share(torch.stack(moved)) >= _ROWS:
        yield Finding(
            kind=FindingKind.BATCH,
            module="",
            where="the output for an image depends on similar images in the batch",
            evidence={"other answers": share(torch.cat(flips))},
            remedy="compute the output for each example independently",
        )


def _other(whole: Output, single: Output, row: int) -> Tensor:
    return (whole.logits[row].argmax() != single.logits[0].argmax()).view(1)


def _parting(among: ModuleIO, alone: ModuleIO, row: int) -> str:
    """The first part that is given the same of an image in both batches, and answers differently."""

    def part(path: str, which: int) -> float:
        one, other = among[path][which], alone[path][which]
        if one.shape != other.shape or len(one) <= row or not one.is_floating_point():
            return 0.0
        return float((one[row] - other[row]).abs().max() / one.std().clamp_min(1e-12))

    paths = [path for path in among if path in alone]
    return next((path for path in paths if part(path, 0) <= _DIFFERS < part(path, 1)), "")


def _moved(one: Output, other: Output, rows: Tensor | None = None) -> Tensor:
    """The largest change (B,) of a logit, as a share of their spread, from ``one``'s ``rows`` to ``other``."""
    a, b = one.logits.double(), other.logits.double()
    return ((a if rows is None else a[rows]) - b).abs().amax(1) / a.std().clamp_min(1e-12)


def _round(value: Tensor) -> float:
    return float(f"{float(value):.3g}")
