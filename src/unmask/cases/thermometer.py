"""Thermometer encoding: zero gradients, broken by BPDA through a ramp."""

from __future__ import annotations

from unmask.attacks.ensemble import Ensemble
from unmask.cases.case import Attacker, Case
from unmask.cases.recipes import ClassifierTraining
from unmask.cases.shared import DIGITS, MNIST, apgd_ce, apgd_dlr, own_gradient
from unmask.defenses.thermometer import Thermometer, ramp
from unmask.gradients.bpda import bpda
from unmask.nets import conv_net
from unmask.training.classifier import ClassifierRecipe

__all__ = ["CASES"]

_CITATION = "Buckman et al., ICLR 2018"
_LEVELS = 16

_ATTACKERS = {
    "plain": own_gradient(),
    "bpda": Attacker(
        "BPDA through a ramp over the code's steps; APGD on cross entropy and DLR",
        lambda _: Ensemble((apgd_ce(restarts=2), apgd_dlr(restarts=2))),
        view=bpda("encode", ramp(_LEVELS, width=4.0)),
    ),
}

CASES = (
    Case(
        name="thermometer-digits",
        defense="thermometer encoding",
        kind="shattered",
        data="digits",
        threat=DIGITS,
        citation=_CITATION,
        build=lambda: Thermometer(conv_net(_LEVELS, 8, (16, 32), 64), _LEVELS),
        attackers=_ATTACKERS,
        train=ClassifierTraining("digits", ClassifierRecipe(epochs=60, batch=64, shift=1)),
    ),
    Case(
        name="thermometer-mnist",
        defense="thermometer encoding",
        kind="shattered",
        data="mnist",
        threat=MNIST,
        citation=_CITATION,
        build=lambda: Thermometer(conv_net(_LEVELS, 28, (16, 32), 64), _LEVELS),
        attackers=_ATTACKERS,
        train=ClassifierTraining("mnist", ClassifierRecipe(epochs=5, shift=2)),
        note="trained on clean images; the authors' claims for MNIST are for adversarially trained networks",
    ),
)
