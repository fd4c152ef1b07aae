"""Named attacks: settings of the one loop."""

from __future__ import annotations

from unmask.attacks.gradient_attack import GradientAttack
from unmask.attacks.optimizers import Adam, Steepest
from unmask.attacks.penalties import Penalty, distance, outside
from unmask.gradients.autograd import autograd
from unmask.gradients.spaces import Latent, Tanh
from unmask.losses import cross_entropy, margin
from unmask.types import Estimator, Loss

__all__ = ["cw", "fgsm", "latent", "mifgsm", "pgd"]


def fgsm(loss: Loss = cross_entropy, estimator: Estimator = autograd) -> GradientAttack:
    """One step of length eps from the image (Goodfellow et al., ICLR 2015).

    >>> fgsm().steps
    1
    """
    return GradientAttack(steps=1, loss=loss, optimizer=Steepest(1.0), estimator=estimator, random_start=False)


def pgd(
    steps: int = 40,
    loss: Loss = cross_entropy,
    estimator: Estimator = autograd,
    *,
    rel_step_size: float | None = None,
    restarts: int = 1,
    early_stop: bool = True,
) -> GradientAttack:
    """Projected gradient ascent from a random start (Madry et al., ICLR 2018).

    ``rel_step_size`` is the length of a step as a share of eps; 2.5 / steps where none is given.
    """
    update = Steepest(2.5 / steps if rel_step_size is None else rel_step_size)
    return GradientAttack(steps, loss, update, estimator, restarts=restarts, early_stop=early_stop)


def mifgsm(steps: int = 40, loss: Loss = cross_entropy, *, decay: float = 1.0) -> GradientAttack:
    """PGD with momentum and no random start (Dong et al., CVPR 2018)."""
    return GradientAttack(steps, loss, Steepest(2.5 / steps, momentum=decay), random_start=False)


def cw(
    steps: int = 200,
    loss: Loss = margin,
    estimator: Estimator = autograd,
    *,
    lr: float = 0.01,
    restarts: int = 5,
    weight: float = 1.0,
) -> GradientAttack:
    """The Carlini-Wagner attack (S&P 2017): Adam in tanh coordinates on loss minus weighted distance.

    Each restart divides the weight of the distance by 10 instead of searching for it by halving;
    candidates are projected onto the threat's ball, so that every one of them is feasible.
    """
    return GradientAttack(
        steps, loss, Adam(lr), estimator, Tanh(), restarts, random_start=False, penalty=Penalty(weight, 0.1, distance)
    )


def latent(
    space: Latent,
    steps: int = 200,
    loss: Loss = margin,
    estimator: Estimator = autograd,
    *,
    lr: float = 0.05,
    restarts: int = 3,
    weight: float = 10.0,
    early_stop: bool = True,
) -> GradientAttack:
    """Reparameterization (Athalye et al., ICML 2018): search the latent space of a generator."""
    penalty = Penalty(weight, 0.1, outside)
    return GradientAttack(steps, loss, Adam(lr), estimator, space, restarts, penalty=penalty, early_stop=early_stop)
