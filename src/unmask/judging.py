"""The judge: whether an attack succeeded, decided on the untouched defense, in float32, inside ball and box."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.inputs import as_batch, as_candidates
from unmask.models.model_wrappers import Passes, batch_invariant
from unmask.randomness import Keys, make_keys, use_keys
from unmask.statistics import Accuracy, accuracy
from unmask.threats import Threat, check_threat
from unmask.types import InvalidModelOutput, Model, Output

__all__ = ["Judge", "JudgedExamples", "Verdict", "judge"]


@dataclass(frozen=True)
class Verdict:
    """What the defense does with B images over D draws of its randomness.

    A candidate outside of ball or box is no candidate: the clean image is judged instead, and a refusal of it counts
    as wrong, so that no such candidate lifts an accuracy above the clean one.
    """

    robust: Tensor  # (D, B) bool: right class, or refused
    predicted: Tensor  # (D, B) int64
    refused: Tensor  # (D, B) bool
    feasible: Tensor  # (B,) bool: the candidate lies inside ball and box
    distance: Tensor  # (B,) float64, of the candidate, in the threat's unit

    @property
    def robust_fraction(self) -> Tensor:
        """Share of the draws (B,), float64, in which the defense classifies the example correctly or refuses it."""
        return self.robust.double().mean(0)


@dataclass(frozen=True)
class Judge:
    """Scores candidates on one defense.

    Args:
        defense: the model as its author means it to be used, in float32.
        threat: the ball that candidates must lie in.
        draws: draws of the defense's randomness per verdict; 1 for a deterministic defense.
        uses_torch_random: whether the defense draws by torch's own random functions.
        batch: images in one forward pass at most.
        tolerance: slack of the distance, as a share of eps, for float32 rounding.

    Raises UnmaskError for draws or a batch below 1, and for a tolerance out of [0, 1).
    """

    defense: Model
    threat: Threat
    draws: int = 1
    uses_torch_random: bool = False
    batch: int = 512
    tolerance: float = 1e-5
    passes: Passes = field(default_factory=Passes)

    def __post_init__(self) -> None:
        check_threat(self.threat)
        if self.draws < 1 or self.batch < 1 or not 0 <= self.tolerance < 1:
            raise UnmaskError(
                f"a judge needs draws >= 1, batch >= 1 and a tolerance from 0 to 1, "
                f"not {self.draws}, {self.batch} and {self.tolerance}"
            )

    def verdict(self, x_adv: Tensor, x: Tensor, y: Tensor, keys: Keys) -> Verdict:
        """Judge candidates (B, C, H, W) for images ``x`` of class ``y``; ``keys`` must be fresh.

        Raises UnmaskError for images and labels that :mod:`unmask.inputs` refuses, and
        :class:`unmask.types.InvalidModelOutput` for logits that are not finite or do not fit the labels.
        """
        x_adv, (x, y) = as_candidates(x_adv, "adversarial examples"), as_batch(x, y)
        feasible, distance = self.feasible(x_adv, x)
        judged = torch.where(feasible.view(-1, 1, 1, 1), x_adv, x)
        answers = [self._answer(judged, y, keys.fold_in(draw)) for draw in range(self.draws)]
        predicted = torch.stack([a.logits.argmax(1) for a in answers])
        refused = torch.stack([_refused(a) for a in answers])
        return Verdict((predicted == y) | (refused & feasible), predicted, refused, feasible, distance)

    def is_broken(self, x_adv: Tensor, x: Tensor, y: Tensor, keys: Keys) -> Tensor:
        """Whether (B,) each candidate is feasible and defeats the defense in every draw."""
        left = self.feasible(x_adv, x)[0].nonzero().squeeze(1)
        for draw in range(self.draws):
            if len(left):
                answer = self._answer(x_adv[left], y[left], keys.select(left).fold_in(draw))
                left = left[(answer.logits.argmax(1) != y[left]) & ~_refused(answer)]
        broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        broken[left] = True
        return broken

    def feasible(self, x_adv: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whether (B,) candidates lie inside ball and box, and their distances (B,) in the threat's unit.

        Raises UnmaskError for candidates of another shape than the images.
        """
        if x_adv.shape != x.shape:
            raise UnmaskError(
                f"adversarial examples have shape {tuple(x_adv.shape)}, the images {tuple(x.shape)}",
                "give one adversarial example an image",
            )
        distance = self.threat.distance(x_adv, x)
        inside_box = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
        return inside_box & (distance <= self.threat.eps * (1 + self.tolerance) + 1e-9), distance

    @torch.no_grad()
    def _answer(self, x: Tensor, y: Tensor, keys: Keys) -> Output:
        call = batch_invariant(self.defense, passes=self.passes, uses_torch_random=self.uses_torch_random)
        parts = []
        for start in range(0, len(x), self.batch):
            chunk = slice(start, start + self.batch)
            with use_keys(keys.select(torch.arange(len(x))[chunk])):
                parts.append(call(x[chunk].float()))
        refuses = [part.reject for part in parts if part.reject is not None]
        logits = torch.cat([part.logits for part in parts]).float()
        _check(logits, y)
        return Output(logits, torch.cat(refuses) if refuses else None)


@dataclass(frozen=True)
class JudgedExamples:
    """What :func:`judge` says of B candidates that other code made."""

    accuracy: Accuracy  # robust accuracy, with its 95 % interval
    robust: Tensor  # (B,) bool: the defense stands in every draw
    feasible: Tensor  # (B,) bool: the candidate lies inside ball and box
    distance: Tensor  # (B,) float64, of the candidate, in the threat's unit
    verdict: Verdict  # draw by draw


@torch.inference_mode(False)
def judge(
    model: Model,
    threat: Threat,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    *,
    draws: int = 1,
    uses_torch_random: bool = False,
    seed: int = 0,
) -> JudgedExamples:
    """Judge adversarial examples that exist already, on the untouched model, inside ball and box.

    Args:
        model: the defense, in evaluation mode: float32 (B, C, H, W) in [0, 1] -> logits (B, K).
        threat: the ball that candidates must lie in. One outside is a failure of its attack: the clean image is judged.
        x: images (B, C, H, W), and ``y`` their classes (B,), as of :mod:`unmask.inputs`.
        x_adv: candidates (B, C, H, W), one an image, in the same order; numpy arrays will do for all three.
        draws: of the defense's randomness per verdict; 1 for a deterministic defense.
        uses_torch_random: whether the defense draws by torch's own random functions.
        seed: of these draws.

    Raises UnmaskError for images, labels and candidates that do not fit, and draws below 1;
    :class:`unmask.types.InvalidModelOutput` for logits that are not finite or do not fit the labels.

    >>> from unmask.threats import Linf
    >>> x, y = torch.tensor([[[[0.6, 0.5]]], [[[0.6, 0.5]]]]), torch.tensor([0, 0])
    >>> found = judge(torch.nn.Flatten(), Linf(0.1), x, y, torch.tensor([[[[0.5, 0.6]]], [[[0.2, 0.6]]]]))
    >>> found.robust.tolist(), found.feasible.tolist(), found.accuracy.value
    ([False, True], [True, False], 0.5)
    """
    verdict = Judge(model, threat, draws, uses_torch_random).verdict(
        x_adv, x, y, make_keys(seed, range(len(x)), "score")
    )
    left = accuracy(verdict.robust_fraction.tolist())
    return JudgedExamples(left, verdict.robust.all(0), verdict.feasible, verdict.distance, verdict)


def _refused(answer: Output) -> Tensor:
    if answer.reject is None:
        return torch.zeros(len(answer.logits), dtype=torch.bool, device=answer.logits.device)
    return answer.reject > 0


def _check(logits: Tensor, y: Tensor) -> None:
    if int(y.max()) >= logits.shape[1]:
        raise InvalidModelOutput(
            f"labels go up to {int(y.max())}, but the model has {logits.shape[1]} classes",
            "check that the data set is the model's",
        )
    bad = ~logits.isfinite().all(1)
    if bad.any():
        kind = "NaN" if logits.isnan().any() else "Inf"
        raise InvalidModelOutput(
            f"the model gives {kind} logits ({int(bad.sum())} of {len(bad)} images)",
            "return finite logits before any softmax or log",
        )
