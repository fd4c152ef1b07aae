"""One attack on one model: the attack searches a view, the judge scores the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor, nn

from unmask.attacks.problem import Attack, Problem
from unmask.attacks.trajectory import TrajectoryRecorder
from unmask.errors import UnmaskError, first_line
from unmask.gradients.bpda import View
from unmask.inputs import as_batch
from unmask.judging import Judge, Verdict
from unmask.models.compiling import Compiler
from unmask.models.graph_memory import bounded_graphs, forget_graph
from unmask.models.model_wrappers import (
    Passes,
    batch_invariant,
    bfloat16,
    fold_batchnorm,
    frozen_copy,
    multiplies_bfloat16,
    query,
)
from unmask.models.own_training import differentiates_by_weights
from unmask.randomness import Keys, make_keys, use_keys
from unmask.records import GradientCounts
from unmask.state.deep_copy import deep_copy
from unmask.statistics import Accuracy, accuracy
from unmask.threats import Threat
from unmask.types import InvalidModelOutput, Model, Output, as_output

__all__ = ["AttackResult", "run_attack", "verdicts"]


@dataclass(frozen=True)
class AttackResult:
    """What came of an attack on B examples."""

    x_adv: Tensor  # (B, C, H, W)
    verdict: Verdict  # on draws of the defense's randomness that nothing was chosen by
    selection: Verdict  # on draws by which attacks may be compared
    passes: Passes = field(default_factory=Passes)  # of the attack; the judge counts its own
    trajectory: TrajectoryRecorder | None = None  # of the examples that were followed, by their numbers in the batch
    gradients: GradientCounts | None = None  # None where the attack computed none
    failures: Mapping[str, str] = field(default_factory=dict)  # names of attacks within it that failed, and why

    @property
    def accuracy(self) -> Accuracy:
        """Robust accuracy with its interval. It is no evidence of robustness where ``gradients`` counts examples
        without a gradient.
        """
        return accuracy(self.verdict.robust_fraction.tolist())


@torch.inference_mode(False)
def run_attack(
    attack: Attack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat | None = None,
    *,
    draws: int = 1,
    uses_torch_random: bool = False,
    judge: Judge | None = None,
    view: View | None = None,
    low_precision: bool = False,
    index: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    record_trajectories: int = 0,
    compiler: Compiler | None = None,
) -> AttackResult:
    """Attack ``x`` (B, C, H, W) of classes ``y`` (B,) through a view of ``model``, and judge the result on ``model``.

    Examples that a deterministic defense gets wrong without an attack are left as they are. A random one, wrong in the
    draws that were asked for, may be right in others: the attack starts all the same.

    Args:
        attack: such as ``APGD(100)`` or ``pgd(40, margin, EOT(30))``.
        model: the defense, in evaluation mode: (B, C, H, W) in [0, 1] -> logits (B, K), or an :class:`unmask.Output`.
        x: images, and ``y`` their classes, as of :mod:`unmask.inputs`: numpy arrays and uint8 images will do.
        threat: such as ``Linf(8 / 255)``.
        draws: of the defense's randomness per verdict; 1 for a deterministic defense.
        uses_torch_random: whether the defense draws by torch's own random functions.
        judge: one that exists, instead of ``threat``, ``draws`` and ``uses_torch_random``, which are then its own.
        view: what gradients pass through, such as ``bpda("encode", surrogate)`` or ``straight_through``.
        low_precision: take gradients in bfloat16 where the hardware multiplies it; verdicts stay float32.
        index: the examples' positions in their data set, which key their randomness.
        seed: of all randomness.
        record_trajectories: number of examples whose trajectory is recorded, the first ones under attack. It changes
            no result.
        compiler: of the views; None for none. The judge asks ``model`` as it is.

    Raises UnmaskError for images or labels that :mod:`unmask.inputs` refuses, and without exactly one of threat and
    judge; :class:`unmask.types.InvalidModelOutput` for logits that are not finite or do not fit the labels.

    >>> from unmask.attacks.aliases import fgsm
    >>> from unmask.threats import Linf
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).eval()
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> x, y = torch.tensor([[[[0.6, 0.5]]], [[[0.9, 0.1]]]]), torch.tensor([0, 0])
    >>> run_attack(fgsm(), model, x, y, Linf(0.1)).verdict.robust_fraction
    tensor([0., 1.], dtype=torch.float64)
    """
    _check(attack, model, view)
    judge = _judge(model, threat, draws, uses_torch_random, judge)
    x, y = as_batch(x, y)
    index = torch.arange(len(x)) if index is None else torch.as_tensor(index)
    if len(index) != len(x):
        raise UnmaskError(f"there are {len(x)} images and {len(index)} positions", "give one position an image")
    passes, health, failures = Passes(), _Health(len(x)), dict[str, str]()
    twin = cache(lambda: frozen_copy(model, x))
    narrow = low_precision and multiplies_bfloat16(x.device)
    screen = make_keys(seed, index, "screen")

    def broken(rows: Tensor, x_adv: Tensor, step: int) -> Tensor:
        return judge.is_broken(x_adv, x[rows], y[rows], screen.select(rows).fold_in(step))

    def failed(name: str, error: Exception) -> None:
        failures.setdefault(name, f"{type(error).__name__}: {first_line(error, '')}")

    def seen(view: View | None) -> Model:
        def make() -> Model:
            return _folded(model, x, screen) if view is None else view(twin())  # a view may change or read any part

        random = judge.draws > 1 or judge.uses_torch_random
        forget_graph()
        viewed = make() if compiler is None else compiler.of(model, view, make, random=random)
        return batch_invariant(
            _answering(bfloat16(viewed) if narrow else viewed), passes=passes, uses_torch_random=judge.uses_torch_random
        )

    rows = torch.arange(len(x), device=x.device)
    if judge.draws == 1:
        rows = rows[~broken(rows, x, 0)]
    trail = TrajectoryRecorder(rows[:record_trajectories].tolist()) if record_trajectories else None
    problem = Problem(
        view=_later(lambda: seen(view)),
        x=x,
        y=y,
        threat=judge.threat,
        keys=make_keys(seed, index, "attack"),
        is_broken=broken,
        scores=batch_invariant(_answering(model), passes=passes, uses_torch_random=judge.uses_torch_random),
        views=seen,
        on_candidate=None if trail is None else trail.record,
        on_gradient=health.see,
        on_failure=failed,
        random=judge.draws > 1,
    )
    x_adv = x.clone()
    if len(rows):
        with bounded_graphs():
            x_adv[rows] = attack(problem.subset(rows))
    spent = replace(passes)  # the views of the trail would count on
    return AttackResult(x_adv, *verdicts(judge, x_adv, x, y, index, seed), spent, trail, health.counts(), failures)


@torch.no_grad()
def _folded(model: nn.Module, x: Tensor, keys: Keys) -> nn.Module:
    """A copy with its batch norms folded, where that answers as the model does: the model's code may use the layers."""
    if differentiates_by_weights(model, x):
        return frozen_copy(model, x)
    folded = fold_batchnorm(model)
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()):
        return folded
    whole = frozen_copy(model)
    try:
        with use_keys(keys.select(torch.arange(min(len(x), 2))), uses_torch_random=True):
            one, other = (query(deep_copy(which), x[:2]).logits for which in (folded, whole))
    except Exception:  # of the author's code, which misses a layer
        return whole
    return folded if torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.std())) else whole


def _judge(model: Model, threat: Threat | None, draws: int, uses_torch_random: bool, judge: Judge | None) -> Judge:
    if judge is None:
        if threat is None:
            raise UnmaskError("run_attack got no threat", "give one, such as Linf(8 / 255), or judge=...")
        return Judge(model, threat, draws, uses_torch_random)
    if threat is not None or draws != 1 or uses_torch_random:
        raise UnmaskError("a judge has its own threat and draws", "leave out threat, draws and uses_torch_random")
    if isinstance(judge.defense, nn.Module) and judge.defense is not model:  # a function may be of the model
        raise UnmaskError("the judge is of another model", "make one of the model that is attacked")
    return judge


def _check(attack: object, model: object, view: object) -> None:
    if not isinstance(model, nn.Module):
        found = type(model).__name__
        raise UnmaskError(f"the model is a {found}", "give an nn.Module; unmask.BlackBoxModel makes one of a function")
    if isinstance(attack, nn.Module | Tensor) or not callable(attack):
        raise UnmaskError(f"the attack is a {type(attack).__name__}", "give one such as unmask.APGD(100)")
    if view is not None and not callable(view):
        raise UnmaskError(f"the view is a {type(view).__name__}", "give one such as unmask.bpda('part')")


class _Health:
    """Which of B examples got gradients during an attack, and of what use these were."""

    def __init__(self, count: int) -> None:
        self._asked, self._useful, self._not_finite = torch.zeros(3, count, dtype=torch.bool)

    def see(self, rows: Tensor, gradient: Tensor) -> None:
        """Gradients (M, ...) of the examples ``rows`` (M,)."""
        flat, rows = gradient.flatten(1), rows.cpu()
        finite = flat.isfinite()
        self._asked[rows] = True
        self._useful[rows] |= (finite & (flat != 0)).any(1).cpu()
        self._not_finite[rows] |= (~finite).any(1).cpu()

    def counts(self) -> GradientCounts | None:
        """None where no gradient was computed."""
        asked = int(self._asked.sum())
        none, not_finite = self._asked & ~self._useful, self._asked & self._not_finite
        return GradientCounts(asked, int(none.sum()), int(not_finite.sum())) if asked else None


def _later(make: Callable[[], Model]) -> Model:
    """A view that is made when it is first asked: attacks by scores ask none."""
    made = cache(make)
    return lambda x: made()(x)


def _answering(model: Model) -> Model:
    """A search would pass over NaN as if the defense stood there; an image in the box deserves an answer."""

    def call(x: Tensor) -> Output:
        answer = as_output(model(x), len(x))
        bad = ~answer.logits.isfinite().all(1)
        if bad.any() and (bad & ((x >= 0) & (x <= 1)).flatten(1).all(1)).any():
            raise InvalidModelOutput(
                "the model gives NaN or Inf logits under attack", "return finite logits for all of [0, 1]"
            )
        return answer

    return call


def verdicts(judge: Judge, x_adv: Tensor, x: Tensor, y: Tensor, index: Tensor, seed: int) -> tuple[Verdict, Verdict]:
    """The scoring and the selection verdict on candidates, by the draws that belong to these examples and seed."""
    scored = judge.verdict(x_adv, x, y, make_keys(seed, index, "score"))
    return scored, scored if judge.draws == 1 else judge.verdict(x_adv, x, y, make_keys(seed, index, "select"))
