"""LID: a detector that an adaptive attack evades, and that a strong plain attack evades too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.problem import Attack
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, apgd_dlr
from unmask.cases.literature import earlier_run, table_of_2018
from unmask.cases.recipes import undisturbed
from unmask.data import load
from unmask.defenses.lid import LID
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import residual_net
from unmask.randomness import make_keys, normal, use_keys

__all__ = ["CASES", "FITTED_TO", "area", "attacked", "score"]

_FIRST, _REFERENCES = 1000, 100
"""The detector is fitted to test images from here on, a network fitting its training images too closely; the case is
evaluated on those before."""

FITTED_TO = replace(pgd(10), early_stop=False)
"""BIM, whose images are the positives of the regression; the authors, too, fit a detector to one attack."""


@dataclass(frozen=True)
class DetectorFitting:
    """Fit the detector of LID on images that come after its references.

    Positives are the images of :data:`FITTED_TO`; negatives are the clean images, and those with Gaussian
    noise of the same length as the attack's perturbations. A further ``held_out`` clean images set the
    threshold, and the same attack on them the areas under the curve that are logged.

    Args:
        examples: clean images that the regression is fitted to; the misclassified ones are left out.
        held_out: images that set the threshold.
        refused: share of clean images that the detector may refuse.
    """

    examples: int = 1000
    held_out: int = 1000
    refused: float = 0.05

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        assert isinstance(model, LID)
        model.to(device).eval()
        start, middle = _FIRST + _REFERENCES, _FIRST + _REFERENCES + self.examples
        images, labels = (t.to(device) for t in load("cifar10", "test", n=middle + self.held_out).batch())
        x, y, index = images[start:middle], labels[start:middle], torch.arange(start, middle)
        (logits, clean), (_, noisy), (_, adversarial) = (
            estimates(model, seen) for seen in _kinds(model, x, y, index, seed)
        )
        right = logits.argmax(1) == y.cpu()
        _regress(model, torch.cat((clean[right], noisy[right])), adversarial[right])
        x, y, index = images[middle:], labels[middle:], torch.arange(middle, middle + self.held_out)
        clean, noisy, adversarial = (score(model, seen) for seen in _kinds(model, x, y, index, seed))
        threshold = clean.quantile(1 - self.refused)
        model.bias -= threshold.to(device)
        yield {
            "area under the curve, against clean images": area(clean, adversarial),
            "against noisy ones": area(noisy, adversarial),
            "flagged": float((adversarial > threshold).float().mean()),
        }


def attacked(model: LID, attack: Attack, x: Tensor, y: Tensor, index: Tensor, seed: int, batch: int = 128) -> Tensor:
    """What an attack that ignores the detector makes of images (N, C, H, W)."""
    parts = []
    for rows in torch.arange(len(x)).split(batch):
        keys = make_keys(seed, index[rows], "detector")
        parts.append(attack(undisturbed(model.classifier, x[rows], y[rows], CIFAR10, keys)))
    return torch.cat(parts)


@torch.no_grad()
def estimates(model: LID, x: Tensor, batch: int = 128) -> tuple[Tensor, Tensor]:
    """On the CPU, of images (N, C, H, W): logits (N, K) and each layer's estimate (N, layers)."""
    answers = [model.features(part) for part in x.split(batch)]
    return torch.cat([logits for logits, _ in answers]).cpu(), torch.cat([found for _, found in answers]).cpu()


def score(model: LID, x: Tensor) -> Tensor:
    """By how much (N,) images are refused, on the CPU."""
    return estimates(model, x)[1] @ model.weight.cpu() + model.bias.cpu()


def area(clean: Tensor, adversarial: Tensor) -> float:
    """Area under the receiver operating characteristic of scores that should be higher for the second."""
    from sklearn.metrics import roc_auc_score  # takes a second to import

    label = torch.arange(len(clean) + len(adversarial)) >= len(clean)
    return float(roc_auc_score(label.numpy(), torch.cat((clean, adversarial)).numpy()))


def _kinds(model: LID, x: Tensor, y: Tensor, index: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clean images; with Gaussian noise as long as the attack's perturbations; and attacked."""
    x_adv = attacked(model, FITTED_TO, x, y, index, seed)
    length = (x_adv - x).flatten(1).norm(dim=1).mean()
    with use_keys(make_keys(seed, index, "noise")):
        noise = normal(x.shape, like=x)
    return x, (x + noise * length / math.sqrt(x[0].numel())).clamp(0, 1), x_adv


def _regress(model: LID, negatives: Tensor, positives: Tensor) -> None:
    """Set the detector to a logistic regression on features (N, layers) scaled to [0, 1]."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    features = torch.cat((negatives, positives))
    low, span = features.amin(0), (features.amax(0) - features.amin(0)).clamp_min(1e-6)
    label = torch.arange(len(features)) >= len(negatives)
    fitted = LogisticRegression(C=100, max_iter=5000).fit(((features - low) / span).numpy(), label.numpy())
    weight = torch.from_numpy(fitted.coef_[0]).float() / span
    model.weight.copy_(weight)
    model.bias.copy_(torch.tensor(fitted.intercept_[0]).float() - weight @ low)


def _without_detector(model: nn.Module) -> nn.Module:
    return model.get_submodule("classifier")


CASES = (
    Case(
        name="lid-cifar10",
        defense="local intrinsic dimensionality",
        obfuscation=(Obfuscation.DETECTOR,),
        data="cifar10",
        threat=CIFAR10,
        citation="Ma et al., ICLR 2018",
        build=lambda: LID(
            residual_net(), load("cifar10", "test", n=_FIRST + _REFERENCES).batch(_FIRST)[0], neighbours=90
        ),
        attacks={
            "plain": AttackSpec(
                "PGD on the classifier's margin, the detector ignored, until classifier and detector are both wrong",
                lambda _: pgd(100, margin),
                view=_without_detector,
                plain=True,
            ),
            "joint": AttackSpec(
                "the detector is attacked too: PGD on the joint margin, APGD on the joint DLR",
                lambda _: Ensemble((pgd(200, margin, restarts=2), apgd_dlr(restarts=2))),
            ),
        },
        train=DetectorFitting(),
        base_case="plain-cifar10",
        published=table_of_2018(0.05, "of an attack that ignores the detector"),
        replicated=earlier_run(0.05),
        max_examples=_FIRST,
        note="accuracy counts a correct class, or a refusal; 5 % of clean images are refused, and count as wrong",
    ),
)
