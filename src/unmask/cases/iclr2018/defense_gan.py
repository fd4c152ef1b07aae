"""Defense-GAN: gradients that vanish in an inner descent, broken on the generator's own manifold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from unmask.attacks.aliases import latent, pgd
from unmask.attacks.problem import Attack
from unmask.cases.case import AttackSpec, Case, ImageProbe
from unmask.cases.common import MNIST_L2
from unmask.cases.literature import earlier_run, table_of_2018
from unmask.cases.recipes import GanTraining
from unmask.defenses.defense_gan import DefenseGAN, Projection
from unmask.gradients.autograd import autograd
from unmask.gradients.bpda import View, bpda, bypass
from unmask.gradients.eot import EOT
from unmask.gradients.spaces import Latent
from unmask.kinds import Obfuscation
from unmask.losses import margin
from unmask.nets import conv_critic, conv_generator, conv_net
from unmask.randomness import normal
from unmask.training.classifier import ClassifierRecipe
from unmask.training.gan import GanRecipe
from unmask.types import Estimator

__all__ = ["CASES"]

_CITATION = "Samangouei et al., ICLR 2018"
_BY_BPDA = "by BPDA, in practice; 0 % in theory; Jalal et al. (2019) report 3 % by another attack (unverified)"


def _on_manifold(steps: int, estimator: Estimator = autograd) -> Callable[[nn.Module], Attack]:
    def make(defense: nn.Module) -> Attack:
        purify = cast(Projection, defense.get_submodule("purify"))
        space = Latent(purify.generator, purify.latent, scale=purify.scale)
        return latent(space, steps, estimator=estimator, restarts=2, early_stop=False)

    return make


def _reprojected(restarts: int, steps: int) -> View:
    """BPDA through a projection that takes less pains: the search looks often, the judge thoroughly."""

    def view(model: nn.Module) -> nn.Module:
        lighter = copy.deepcopy(model)
        purify = cast(Projection, lighter.get_submodule("purify"))
        purify.restarts, purify.steps = min(restarts, purify.restarts), min(steps, purify.steps)
        return bpda("purify")(lighter)

    return view


def _jitter(x: Tensor) -> Tensor:
    """What a projection may make of an image that the generator made: noise of norm 0.5, as Jalal et al. add."""
    noise = normal(x.shape, like=x)
    moved: Tensor = x + 0.5 * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return moved


def _error(defense: nn.Module, x: Tensor) -> Tensor:
    error: Tensor = (defense.get_submodule("purify")(x) - x).square().flatten(1).mean(1)
    return error


_LENS = ImageProbe("purify", "mean squared error of the projection", _error)

_LIGHTER = _reprojected(restarts=2, steps=40)

# All searches go on to the end: the judge, who takes the whole pains, would cost more than the steps that it saves.
_ATTACKERS = {
    "plain": AttackSpec(
        "PGD through the unrolled inner descent", lambda _: pgd(10, early_stop=False), plain=True, low_precision=False
    ),
    "bpda": AttackSpec(
        "BPDA: the projection is the identity in the backward pass, and shorter; PGD on the margin",
        lambda _: pgd(60, margin, restarts=2, early_stop=False),
        view=_LIGHTER,
        low_precision=False,
    ),
    "latent": AttackSpec(
        "reparameterization: a search over G(z) near the image, projected again, by a shorter projection, in each step",
        _on_manifold(100),
        view=_LIGHTER,
        low_precision=False,
    ),
    "overpowered": AttackSpec(
        "a search over G(z) on the classifier alone, for errors that survive 8 draws of noise (Jalal et al., 2019)",
        _on_manifold(200, EOT(8)),
        view=bypass("purify", _jitter),
        low_precision=False,
    ),
}

CASES = (
    Case(
        name="defense-gan-mnist",
        defense="Defense-GAN",
        obfuscation=(Obfuscation.VANISHING,),
        data="mnist",
        threat=MNIST_L2,
        citation=_CITATION,
        build=lambda: DefenseGAN(
            conv_net(1, 28, (16, 32), 64), Projection(conv_generator(128, 16), 128, restarts=10, steps=200)
        ),
        attacks=_ATTACKERS,
        train=GanTraining(
            "mnist", lambda: conv_critic(16), GanRecipe(iterations=4000), ClassifierRecipe(epochs=5, shift=2)
        ),
        draws=2,
        published=table_of_2018(0.55, _BY_BPDA),
        replicated=earlier_run(0.55),
        max_examples=200,
        n_controls=8,
        image_probe=_LENS,
        note="R = 10 restarts of L = 200 steps, as specified; the generator has a quarter of the authors' channels, "
        "and 4000 iterations of training instead of 200 000",
    ),
)
