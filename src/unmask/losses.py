"""What an attack maximises: per-example losses that are higher the closer an example is to success.

Success means a wrong class AND, where the model has a detector, no rejection (``reject <= 0``). Every loss here
joins the two in the same way, :func:`_joint`:

    min(loss - max(reject, 0), certain - reject)

where ``certain`` is the least loss that guarantees a wrong class. So both gradients act while both conditions fail;
the detector's acts alone once the class is surely wrong; the classifier's acts alone once the detector accepts, and
neither can be bought with the other. ``margin`` and ``dlr`` are positive for successes alone (and 0 where the right
class ties, or the detector is at its threshold). Beyond success the smaller of the two grows, since a random model that
barely accepts an image refuses it in other draws. The scale of ``reject`` matters only while both conditions fail, as
the weight of one gradient against the other, and beyond success; no sigmoid flattens it.

A loss may carry the attribute ``success_threshold``, the smallest value that a success can have: see the function of
that name.
Logits are taken in at least float32, also where the model computes in less.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.types import Loss, Output

__all__ = [
    "LOSSES",
    "cross_entropy",
    "dlr",
    "margin",
    "success_threshold",
    "targeted_cross_entropy",
    "targeted_dlr",
    "targeted_margin",
    "targeted_probability_margin",
    "with_confidence",
]

_FLAT = 1e-12  # a spread of logits below this is division by zero


def success_threshold(loss: Loss) -> float:
    """The smallest value that ``loss`` can have where the attack has succeeded; -inf where nobody has said.

    An attack queries the judge only for examples that reach it.

    >>> success_threshold(margin), success_threshold(lambda output, labels: output.logits[:, 0])
    (0.0, -inf)
    """
    value: float = getattr(loss, "success_threshold", -math.inf)
    return value


def _needs(value: float) -> Callable[[Loss], Loss]:
    def mark(loss: Loss) -> Loss:
        loss.success_threshold = value  # type: ignore[attr-defined]
        return loss

    return mark


@_needs(math.log(2) - 1e-6)  # a wrong class leaves the right one at most 1/2; 1e-6 is for rounding
def cross_entropy(output: Output, labels: Tensor) -> Tensor:
    """-log p_y: (B, K) logits and (B,) labels -> (B,).

    >>> cross_entropy(Output(torch.zeros(1, 2)), torch.tensor([0]))
    tensor([0.6931])
    """
    logits = _logits(output)
    value = F.cross_entropy(logits, labels, reduction="none")
    return _joint(value, output.reject, certain=math.log(logits.shape[1]))  # p_y < 1/K is never the largest


@_needs(0.0)
def margin(output: Output, labels: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y: (B, K) logits and (B,) labels -> (B,); Carlini & Wagner (S&P 2017), without a floor.

    >>> margin(Output(torch.tensor([[3.0, 1.0, 2.0]])), torch.tensor([0]))
    tensor([-1.])
    """
    return _joint(_lead(_logits(output), labels), output.reject, certain=0.0)


@_needs(0.0)
def dlr(output: Output, labels: Tensor) -> Tensor:
    """The margin over the spread of the three largest logits: (max_{j != y} z_j - z_y) / (z_1st - z_3rd).

    (B, K) logits and (B,) labels -> (B,). Scaling or shifting the logits does not change it. Croce & Hein,
    *Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks* (ICML 2020).
    ``UnmaskError`` for fewer than three classes.

    >>> dlr(Output(torch.tensor([[3.0, 1.0, 2.0]])), torch.tensor([0]))
    tensor([-0.5000])
    """
    logits = _logits(output)
    first, _, third = _largest(logits, 3, "dlr")
    value = _lead(logits, labels) / (first - third).clamp_min(_FLAT)
    return _joint(value, output.reject, certain=0.0)


def with_confidence(loss: Loss, kappa: float) -> Loss:
    """``loss`` less ``kappa``: the judge is queried for an example only once its loss is larger than necessary.

    For random defenses: an example that is just over the boundary is right again in some of the draws.

    >>> with_confidence(margin, 1.5)(Output(torch.tensor([[3.0, 1.0]])), torch.tensor([1]))
    tensor([0.5000])
    """

    def shifted(output: Output, labels: Tensor) -> Tensor:
        return loss(output, labels) - kappa

    return _needs(success_threshold(loss))(shifted)


def targeted_cross_entropy(output: Output, labels: Tensor) -> Tensor:
    """The logarithm of p_t: (B, K) logits and (B, 2) labels, the true class and the target, -> (B,).

    Like the other targeted losses it has no ``success_threshold`` value, since another wrong class than the target is a
    success too, and raises ``UnmaskError`` for labels of another shape.

    >>> targeted_cross_entropy(Output(torch.zeros(1, 4)), torch.tensor([[0, 1]]))
    tensor([-1.3863])
    """
    _, target = _aimed(labels)
    value = -F.cross_entropy(_logits(output), target, reduction="none")
    return _joint(value, output.reject, certain=-math.log(2))  # p_t > 1/2 is the largest


def targeted_margin(output: Output, labels: Tensor) -> Tensor:
    """z_t - max_{j != t} z_j: (B, K) logits and (B, 2) labels -> (B,); positive where the target is the answer.

    >>> targeted_margin(Output(torch.tensor([[3.0, 1.0, 2.0]])), torch.tensor([[0, 1]]))
    tensor([-2.])
    """
    _, target = _aimed(labels)
    return _joint(-_lead(_logits(output), target), output.reject, certain=0.0)


def targeted_dlr(output: Output, labels: Tensor) -> Tensor:
    """(z_t - z_y) / (z_1st - (z_3rd + z_4th) / 2): (B, K) logits and (B, 2) labels -> (B,); Croce & Hein (ICML 2020).

    ``UnmaskError`` for fewer than four classes.

    >>> targeted_dlr(Output(torch.tensor([[3.0, 1.0, 2.0, 0.0]])), torch.tensor([[0, 1]]))
    tensor([-0.8000])
    """
    logits = _logits(output)
    true, target = _aimed(labels)
    first, _, third, fourth = _largest(logits, 4, "targeted_dlr")
    value = (_at(logits, target) - _at(logits, true)) / (first - (third + fourth) / 2).clamp_min(_FLAT)
    return _joint(value, output.reject, certain=0.0)


def targeted_probability_margin(output: Output, labels: Tensor) -> Tensor:
    """p_t - p_y, of softmax probabilities: (B, K) logits and (B, 2) labels -> (B,); positive where p_t is larger.

    Xie, Fang, Yang, Wu, Sun & Guan, *Towards million-scale adversarial robustness evaluation with stronger individual
    attacks* (arXiv 2411.15210).

    >>> targeted_probability_margin(Output(torch.tensor([[0.0, 0.0, 100.0]])), torch.tensor([[0, 2]]))
    tensor([1.])
    """
    true, target = _aimed(labels)
    shares = _logits(output).softmax(1)
    return _joint(_at(shares, target) - _at(shares, true), output.reject, certain=0.0)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}


def _joint(value: Tensor, reject: Tensor | None, certain: float) -> Tensor:
    if reject is None:
        return value
    if reject.shape != value.shape:
        raise UnmaskError(
            f"reject must have shape {tuple(value.shape)}, one margin an example, not {tuple(reject.shape)}"
        )
    return torch.minimum(value - reject.clamp_min(0), certain - reject)


def _logits(output: Output) -> Tensor:
    return output.logits.to(torch.promote_types(output.logits.dtype, torch.float32))


def _at(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def _lead(logits: Tensor, classes: Tensor) -> Tensor:
    """(B,) how far the best other class is ahead of this one."""
    return logits.scatter(1, classes[:, None], -math.inf).amax(1) - _at(logits, classes)


def _largest(logits: Tensor, count: int, name: str) -> tuple[Tensor, ...]:
    if logits.shape[1] < count:
        raise UnmaskError(f"{name} needs at least {count} classes, got {logits.shape[1]}", "use a margin loss instead")
    return logits.topk(count, dim=1).values.unbind(1)


def _aimed(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The true classes (B,) and the targets (B,)."""
    if labels.ndim != 2 or labels.shape[1] != 2:
        raise UnmaskError(
            f"a targeted loss needs labels of shape (B, 2), the true class and the target, not {tuple(labels.shape)}"
        )
    return labels[:, 0], labels[:, 1]
