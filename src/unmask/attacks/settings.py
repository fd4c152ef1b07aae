"""Named attacks: settings of the one loop."""

from __future__ import annotations

from unmask.attacks.descent import Descent
from unmask.attacks.penalties import Penalty, distance, outside
from unmask.attacks.updates import Adam, Steepest
from unmask.gradients.autograd import autograd
from unmask.gradients.spaces import Latent, Tanh
from unmask.losses import cross_entropy, margin
from unmask.types import Estimator, Loss

__all__ = ["cw", "fgsm", "latent", "mifgsm", "pgd"]


def fgsm(loss: Loss = cross_entropy, estimator: Estimator = autograd) -> Descent:
    """One step of length eps from the image (Goodfellow et al., ICLR 2015).

    >>> fgsm().steps
    1
    """
    return Descent(steps=1, loss=loss, update=Steepest(1.0), estimator=estimator, random_start=False)


def pgd(
    steps: int = 40,
    loss: Loss = cross_entropy,
    estimator: Estimator = autograd,
    *,
    size: float | None = None,
    restarts: int = 1,
    early_stop: bool = True,
) -> Descent:
    """Projected gradient ascent from a random start (Madry et al., ICLR 2018).

    ``size`` is the length of a step as a share of eps; 2.5 / steps where none is given.
    """
    update = Steepest(2.5 / steps if size is None else size)
    return Descent(steps, loss, update, estimator, restarts=restarts, early_stop=early_stop)


def mifgsm(steps: int = 40, loss: Loss = cross_entropy, *, decay: float = 1.0) -> Descent:
    """PGD with momentum and no random start (Dong et al., CVPR 2018)."""
    return Descent(steps, loss, Steepest(2.5 / steps, momentum=decay), random_start=False)


def cw(
    steps: int = 200,
    loss: Loss = margin,
    estimator: Estimator = autograd,
    *,
    rate: float = 0.01,
    restarts: int = 5,
    weight: float = 1.0,
) -> Descent:
    """The Carlini-Wagner attack (S&P 2017): Adam in tanh coordinates on loss minus weighted distance.

    Each restart divides the weight of the distance by 10 instead of searching for it by halving;
    candidates are projected onto the threat's ball, so that every one of them is feasible.
    """
    return Descent(
        steps, loss, Adam(rate), estimator, Tanh(), restarts, random_start=False, penalty=Penalty(weight, 0.1, distance)
    )


def latent(
    space: Latent,
    steps: int = 200,
    loss: Loss = margin,
    estimator: Estimator = autograd,
    *,
    rate: float = 0.05,
    restarts: int = 3,
    weight: float = 10.0,
    early_stop: bool = True,
) -> Descent:
    """Reparameterization (Athalye et al., ICML 2018): search the latent space of a generator."""
    penalty = Penalty(weight, 0.1, outside)
    return Descent(steps, loss, Adam(rate), estimator, space, restarts, penalty=penalty, early_stop=early_stop)
