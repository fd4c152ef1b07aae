"""Checks of a model's setup before any attack: its input, its output, and what else the output depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from unmask.diagnosis.behaviour.determinism import steadiness
from unmask.diagnosis.instrumentation import keyed_query, preserve_buffers, record_io, share
from unmask.kinds import FindingKind
from unmask.randomness import Keys, uniform, use_keys
from unmask.records import Finding
from unmask.statistics import paired_test
from unmask.types import Output

__all__ = ["lint", "made_for", "overwrites"]

_BETTER = 0.3
"""Accuracy that images of another range must gain for the model to have been made for that range."""


_DRAWS = 16
"""Over which the answers to images in [0, 1] are averaged."""


def lint(model: nn.Module, x: Tensor, y: Tensor, keys: Keys) -> list[Finding]:
    """Warnings about a model's setup, from its outputs for images (B, C, H, W) of classes (B,); sixteen are enough.

    Kinds: "dtype", "overwrites input", "probabilities", "labels" (or votes: no scores), "range"
    (made for images of another range), "not finite" (somewhere in [0, 1]), "training mode" (of some parts), "random",
    "unrepeatable" (random, and not by torch), "batch" (an answer that depends on the batch's other examples, or on its
    place among them), "clock" (on the time).
    Each finding has its place, its effect, and a remedy.

    Log-probabilities are no mistake: every loss has the same value for them as for logits.

    >>> from unmask.randomness import make_keys
    >>> class Centred(nn.Module):
    ...     def forward(self, x): return (x - x.mean(0)).flatten(1)
    >>> keys = make_keys(0, range(16), "lint")
    >>> found, = lint(Centred().eval(), torch.rand(16, 1, 2, 2), torch.zeros(16).long(), keys)
    >>> str(found.kind), found.remedy
    ('batch', 'compute the output for each example independently')
    """
    with torch.no_grad(), preserve_buffers(model):
        answers = keyed_query(model, x, keys)
        return [
            *_dtype(model, answers),
            *overwrites(model, x, keys),
            *_probabilities(answers),
            *made_for(model, x, y, keys),
            *_not_finite(model, x, keys),
            *steadiness(model, x, keys),
        ]


def _dtype(model: nn.Module, answers: Output) -> Iterator[Finding]:
    logits = answers.logits
    if logits.dtype != torch.float32:
        first, second = logits.double().topk(2, dim=1).values.T
        yield Finding(
            kind=FindingKind.DTYPE,
            module="",
            where="the model's answer",
            evidence={"dtype": _name(logits.dtype), "ties": share(first == second)},
            remedy="answer float32",
        )
    for path, weight in model.named_parameters():
        if weight.is_floating_point() and weight.dtype != torch.float32:
            yield Finding(
                kind=FindingKind.DTYPE,
                module=path.rpartition(".")[0],
                where=f"weights {path}",
                evidence={"dtype": _name(weight.dtype)},
                remedy="keep the weights in float32: model.float()",
            )
            return


def _probabilities(answers: Output) -> Iterator[Finding]:
    logits = answers.logits.double()
    if _labels(logits):
        kinds = "a label alone" if len(logits.unique()) == 2 else "counts of votes"
        yield Finding(
            FindingKind.LABELS, "", f"the model's answer: {kinds}", {"values": len(logits.unique())}, _ANSWER_LOGITS
        )
    elif logits.min() >= 0 and logits.max() <= 1 and (logits.sum(1) - 1).abs().max() < 1e-4:
        saturated = share(1 - logits.amax(1) < torch.finfo(torch.float32).eps)
        yield Finding(
            FindingKind.PROBABILITIES,
            "",
            "the model's answer",
            {"exactly 1": saturated},
            "return the logits before the softmax",
        )


_ANSWER_LOGITS = "return the logits, or their mean, instead of the classes"


def _labels(logits: Tensor) -> bool:
    """Whether each row is one value for the class and another for the rest, or whole numbers of the same sum."""
    values = logits.unique()
    one_hot = len(values) == 2 and bool(((logits == values[-1]).sum(1) == 1).all())
    votes = bool((logits == logits.round()).all() and (logits >= 0).all() and (logits.sum(1) == logits[0].sum()).all())
    return one_hot or (votes and bool(logits.any()))


_RANGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "[0, 255]": (lambda x: 255 * x, "--range 255, or x = 255 * x first in the model"),
    "[-1, 1]": (lambda x: 2 * x - 1, "x = 2 * x - 1 first in the model"),
    "mean 0 and deviation 1": (
        lambda x: (x - x.mean()) / x.std(),
        "x = (x - mean) / deviation first in the model",
    ),
}
"""Other ranges of images: how to bring images in [0, 1] there, and what to do about it."""


def overwrites(model: nn.Module, x: Tensor, keys: Keys) -> Iterator[Finding]:
    """A finding of kind "overwrites input" where the model writes into the images (B, C, H, W) that it is given."""
    given = x.clone()
    version = given._version
    with torch.no_grad(), use_keys(keys, uses_torch_random=True):
        model(given)
    if given._version != version or not torch.equal(given, x):  # numpy writes without a new version
        yield Finding(
            kind=FindingKind.OVERWRITES_INPUT,
            module="",
            where="the model writes into its input images; each call is given a copy",
            evidence={"largest change": round(float((given - x).abs().max()), 3)},
            remedy="begin the forward pass with x = x.clone(), or leave out in-place operations",
        )


def made_for(model: nn.Module, x: Tensor, y: Tensor, keys: Keys) -> Iterator[Finding]:
    """A finding of kind "range" where the model classifies images (B, C, H, W) much better in another range."""

    def right(seen: Tensor, draws: int = 1) -> list[float]:
        answers = [keyed_query(model, seen, keys.fold_in(draw) if draw else keys).logits for draw in range(draws)]
        found: list[float] = (torch.stack(answers).mean(0).argmax(1) == y).double().tolist()
        return found

    own, found = right(x), {}
    for name, (change, _) in _RANGES.items():
        try:
            other = right(change(x))
        except (RuntimeError, ValueError, IndexError):  # a look-up table, say, has no place for such numbers
            continue
        better = paired_test(other, own)
        if better.value >= _BETTER and better.p < 0.05:
            found[name] = sum(other) / len(other)
    if found:  # noise that the model adds is less beside larger numbers, whatever its range
        own = right(x, _DRAWS)
    if found and max(found.values()) - sum(own) / len(own) >= _BETTER:
        best = max(found, key=found.__getitem__)
        yield Finding(
            kind=FindingKind.RANGE,
            module="",
            where=f"the input: of images in {best} the model classifies {found[best]:.0%} correctly, "
            f"of those in [0, 1] {sum(own) / len(own):.0%}",
            evidence={"accuracy": round(sum(own) / len(own), 3), f"of {best}": round(found[best], 3)},
            remedy=_RANGES[best][1],
        )


def _not_finite(model: nn.Module, x: Tensor, keys: Keys) -> Iterator[Finding]:
    with use_keys(keys.fold_in("probe")):
        noise = uniform(x.shape, x)
    probes = {
        "black images": torch.zeros_like(x),
        "white images": torch.ones_like(x),
        "grey images": torch.full_like(x, 0.5),
        "noise": noise,
        "images of two values": (noise < 0.5).to(x),
    }
    bad: dict[str, float] = {}
    parts: list[str] = []  # that make such numbers of others
    for name, probe in probes.items():
        with record_io(model) as spots:
            finite = keyed_query(model, probe, keys).logits.isfinite().all(1)
        if not finite.all():
            bad[name] = share(~finite)
            part = next((path for path, (given, made) in spots.items() if _sound(given) and not _sound(made)), "")
            parts.append(part)
    if bad:
        yield Finding(
            kind=FindingKind.NOT_FINITE,
            module=parts[0],
            where=f"NaN or Inf for {', '.join(bad)}",
            evidence=bad,
            remedy="return finite logits for all of [0, 1]: avoid 0 in divisions, roots and logarithms",
        )


def _sound(t: Tensor) -> bool:
    return bool(t.isfinite().all())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
