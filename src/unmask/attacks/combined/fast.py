"""An ensemble for sound networks, at a tenth of AutoAttack's passes."""

from __future__ import annotations

from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.auto_pgd.targeted_halving import Round, TargetedHalving
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.gradients.autograd import autograd
from unmask.losses import margin
from unmask.types import Estimator

__all__ = ["fast"]


def fast(steps: int = 100, estimator: Estimator = autograd) -> Ensemble:
    """Auto-PGD on the margin, targeted Auto-PGD with successive halving, Square: the worst case of each example.

    For networks whose gradients are sound. Of an example that stands AutoAttack (Croce & Hein, ICML 2020) computes
    1900 gradients and 6900 forward passes; this computes a tenth of either with 100 ``steps``, which all parts scale
    with. ``docs/fast.md`` compares what both leave.

    Args:
        steps: two thirds of the gradients that an example which stands costs.
        estimator: how to get the gradient.

    >>> from unmask.gradients.eot import EOT
    >>> attack, cheaper, random = fast(), fast(50), fast(estimator=EOT(8))
    """
    unit = steps / 100
    first, many, some, one = (max(1, round(share * unit)) for share in (15, 8, 16, 32))
    rounds = (Round(9, many), Round(3, some, 0.25), Round(1, one, 0.125))
    return Ensemble(
        (
            APGD(first, margin, estimator),
            TargetedHalving(rounds, estimator=estimator),
            Square(max(1, round(300 * unit))),
        )
    )
