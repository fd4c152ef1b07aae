"""Stochastic local winner-takes-all: each draw has a gradient of its own, which explodes; BPDA and EOT break it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from unmask.attacks.aliases import pgd
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import apgd_ce, own_gradient
from unmask.cases.recipes import ClassifierTraining
from unmask.defenses.post2018.networks.local_winners import WinnersNet, expected_winner
from unmask.gradients.bpda import bpda
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin, with_confidence
from unmask.randomness import uniform
from unmask.threats import Linf
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES", "UniformNoise"]

_SURE = with_confidence(margin, 8.0)  # an image that is just over the boundary is classified correctly in some draws


@dataclass(frozen=True)
class UniformNoise:
    """Perturbs training images (B, C, H, W) by uniform noise in [-size, size]; they stay in [0, 1].

    >>> import torch
    >>> from unmask.randomness import make_keys, use_keys
    >>> with use_keys(make_keys(0, range(1), "train")):
    ...     x = UniformNoise(0.2)(nn.Identity(), torch.full((1, 1, 2, 2), 0.5), torch.zeros(1), 0.0, torch.zeros(1))
    >>> bool(((x > 0.3) & (x < 0.7)).all())
    True
    """

    size: float

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float, index: Tensor) -> Tensor:
        return (x + self.size * (2 * uniform(x.shape, like=x) - 1)).clamp(0, 1)


CASES = (
    Case(
        name="lwta-digits",
        defense="stochastic local winner-takes-all",
        obfuscation=(Obfuscation.STOCHASTIC, Obfuscation.VANISHING),
        data="digits",
        threat=Linf(0.175),
        citation="Panousis et al., AISTATS 2021",
        build=lambda: WinnersNet(1, 8),
        attacks={
            "plain": replace(own_gradient(), low_precision=False),
            "bpda": AttackSpec(
                "BPDA, each activation its mean over draws in the backward pass, and EOT over 8 draws: APGD on cross "
                "entropy, PGD on the margin",
                lambda _: Ensemble((apgd_ce(60, EOT(8)), pgd(100, _SURE, EOT(8), rel_step_size=0.05))),
                view=bpda("compete", expected_winner),
                low_precision=False,
            ),
        },
        train=ClassifierTraining(
            "digits",
            ClassifierRecipe(epochs=150, batch=64, rate=1e-3, perturb=UniformNoise(0.2), shift=1, low_precision=False),
        ),
        draws=16,
        n_controls=16,
        note="trained with uniform noise of up to 0.2 on the images; point weights, without the stick-breaking prior "
        "and the divergences of the authors' Bayesian layers",
    ),
)
