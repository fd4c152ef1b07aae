"""The odds are odd: a detector that an attack evades whose images behave under noise as clean ones do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10
from unmask.cases.recipes import undisturbed
from unmask.data import load
from unmask.defenses.post2018.test_time.odds import OddsTest
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin, with_confidence
from unmask.nets import residual_net
from unmask.randomness import make_keys, use_keys
from unmask.records import Figure

__all__ = ["CASES", "OddsFitting", "fit_odds"]

_SURE = with_confidence(margin, 0.5)  # beyond the threshold, which noise moves from draw to draw
_FIRST, _ATTACKED = 1000, 100
"""The threshold is set by test images from here on; the case is evaluated on those before."""


@dataclass(frozen=True)
class OddsFitting:
    """Take the statistics from training images, and set the threshold by test images that no case is evaluated on.

    Args:
        examples: training images of the statistics; the misclassified ones are left out.
        held_out: test images that set the threshold.
        refused: share of the held-out images that are refused.
    """

    examples: int = 2000
    held_out: int = 500
    refused: float = 0.05

    def __call__(self, model: nn.Module, folder: Path, *, seed: int, device: str) -> Iterator[dict[str, Any]]:
        assert isinstance(model, OddsTest)
        model.to(device).eval()
        images, labels = (t.to(device) for t in load("cifar10", "train", n=self.examples).batch())
        fit_odds(model, images, labels, seed)
        images, labels = (t.to(device) for t in load("cifar10", "test", n=_FIRST + self.held_out).batch(_FIRST))
        model.threshold += _each_batch(model, images, seed + 1, _refusal).quantile(1 - self.refused)
        rows = torch.arange(len(images))[:_ATTACKED]
        problem = undisturbed(model.classifier, images[rows], labels[rows], CIFAR10, make_keys(seed, rows, "detector"))
        adversarial = _each_batch(model, replace(pgd(10), early_stop=False)(problem), seed + 2, _refusal)
        yield {"threshold": float(model.threshold), "flagged of PGD": float((adversarial > 0).float().mean())}


def _refusal(model: OddsTest, x: Tensor) -> Tensor:
    reject: Tensor = model(x).reject
    return reject


def _found(model: OddsTest, x: Tensor) -> Tensor:
    return torch.cat(model.changes(x), 1)


def fit_odds(model: OddsTest, x: Tensor, y: Tensor, seed: int) -> None:
    """Set mean and deviation of the changes to those of images (N, C, H, W) that are classified correctly."""
    found = _each_batch(model, x, seed, _found)
    logits, changes = found.chunk(2, 1)
    for k in range(changes.shape[1]):
        own = changes[(logits.argmax(1) == k) & (y == k)]
        model.mean[k], model.deviation[k] = own.mean(0), own.std(0).clamp_min(1e-6)


@torch.no_grad()
def _each_batch(
    model: OddsTest, x: Tensor, seed: int, what: Callable[[OddsTest, Tensor], Tensor], batch: int = 64
) -> Tensor:
    parts = []
    for rows in torch.arange(len(x)).split(batch):
        with use_keys(make_keys(seed, rows, "odds")):
            parts.append(what(model, x[rows]))
    return torch.cat(parts)


def _without_test(model: nn.Module) -> nn.Module:
    return model.get_submodule("classifier")


CASES = (
    Case(
        name="odds-cifar10",
        defense="the odds are odd",
        obfuscation=(Obfuscation.DETECTOR, Obfuscation.STOCHASTIC),
        data="cifar10",
        threat=CIFAR10,
        citation="Roth et al., ICML 2019",
        build=lambda: OddsTest(residual_net()),
        attacks={
            "plain": AttackSpec(
                "PGD on the classifier's margin, the test ignored, until classifier and test are both wrong",
                lambda _: pgd(100, margin),
                view=_without_test,
                plain=True,
            ),
            "joint": AttackSpec(
                "the test is attacked too, each step with fresh noise: PGD on the joint margin",
                lambda _: Ensemble(
                    (pgd(100, with_confidence(margin, 1.0)), pgd(100, with_confidence(margin, 1.0), EOT(2)))
                ),
            ),
        },
        train=OddsFitting(),
        base_case="plain-cifar10",
        draws=5,
        published=Figure(
            0.0,
            "Tramer et al., NeurIPS 2020, notebook 02_odds/Attack.ipynb",
            "https://github.com/wielandbrendel/adaptive_attacks_paper",
            "logits matched under noise, on a WideResNet, for the setting with a single kind of noise",
        ),
        max_examples=_FIRST,
        note="accuracy counts a correct class, or a refusal; 5 % of clean images are refused, and count as wrong",
    ),
)
