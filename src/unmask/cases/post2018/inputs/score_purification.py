"""Score-based purification: noise and a few steps along a score; broken by the mean of exact gradients of all steps."""

from __future__ import annotations

from unmask.attacks.aliases import pgd
from unmask.cases.case import AttackSpec, Case, ImageProbe
from unmask.cases.common import CIFAR10, own_gradient
from unmask.cases.post2018.training import ScoreTraining
from unmask.defenses.post2018.inputs.score_purification import Adaptive, ScorePurification, ScorePurify
from unmask.gradients.bpda import bpda
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import UNet, residual_net
from unmask.records import Figure
from unmask.training.diffusion import DiffusionRecipe
from unmask.training.score import geometric_levels

__all__ = ["CASES"]

_START, _STEPS, _RUNS = 0.15, 3, 4


def _build() -> ScorePurification:
    network = UNet(widths=(32, 64), embedding=0)
    return ScorePurification(residual_net(), ScorePurify(network, _STEPS, _START, Adaptive()), _RUNS)


CASES = (
    Case(
        name="score-purification-cifar10",
        defense="score-based purification",
        obfuscation=(Obfuscation.STOCHASTIC,),
        data="cifar10",
        threat=CIFAR10,
        citation="Yoon et al., ICML 2021",
        build=_build,
        attacks={
            "plain": own_gradient(20),
            "bpda": AttackSpec(
                "BPDA: the purification is the identity in the backward pass; PGD on the margin",
                lambda _: pgd(20, margin),
                view=bpda("purify"),
            ),
            "exact": AttackSpec(
                f"EOT over 2 passes, {2 * _RUNS} runs, of the exact gradient through all steps; PGD on the margin",
                lambda _: pgd(20, margin, EOT(2), early_stop=False),
            ),
        },
        train=ScoreTraining("cifar10", DiffusionRecipe(epochs=3, batch=32), geometric_levels(0.4, 0.02, 10)),
        base_case="plain-cifar10",
        draws=4,
        image_probe=ImageProbe("purify"),
        n_controls=16,
        published=Figure(
            0.337,
            "Croce et al., ICML 2022, log of their evaluation",
            "https://github.com/fra31/evaluating-adaptive-test-time-defenses/blob/main/yoon_2021/logs/Standard/stats.txt",
            "APGD of 10 steps, EOT over 200 draws, 1000 images; of the authors' score network, with noise of 0.25",
        ),
        note=f"noise of {_START} instead of the authors' 0.25, {_STEPS} steps instead of 10, {_RUNS} runs instead of "
        "10, by a small U-Net of 0.16 million parameters",
    ),
)
