"""An attack as the command line names it: a setting, an estimator, and views, each by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from unmask.attacks.apgd import APGD
from unmask.attacks.ensemble import Ensemble
from unmask.attacks.problem import Attack
from unmask.attacks.random_search import RandomSearch
from unmask.attacks.settings import cw, fgsm, mifgsm, pgd
from unmask.attacks.square import Square
from unmask.cases import Attacker
from unmask.gradients.autograd import autograd
from unmask.gradients.bpda import View, bpda, identity
from unmask.gradients.eot import EOT
from unmask.gradients.spsa import SPSA
from unmask.gradients.straight_through import straight_through
from unmask.losses import dlr, targeted_dlr
from unmask.types import Estimator

__all__ = ["ATTACKS", "BUILT_IN", "chosen"]

Setting = Callable[[int, int, Estimator], Attack]

ATTACKS: dict[str, tuple[str, Setting]] = {
    "fgsm": ("one step (Goodfellow et al., 2015)", lambda steps, restarts, e: fgsm(estimator=e)),
    "pgd": ("projected gradient ascent (Madry et al., 2018)", lambda s, r, e: pgd(s, estimator=e, restarts=r)),
    "mifgsm": ("PGD with momentum (Dong et al., 2018)", lambda s, r, e: mifgsm(s)),
    "cw": ("Carlini & Wagner (2017), within the ball", lambda s, r, e: cw(s, estimator=e, restarts=max(r, 3))),
    "apgd": ("Auto-PGD on cross entropy (Croce & Hein, 2020)", lambda s, r, e: APGD(s, estimator=e, restarts=r)),
    "apgd-dlr": ("Auto-PGD on DLR", lambda s, r, e: APGD(s, loss=dlr, estimator=e, restarts=r)),
    "apgd-targeted": ("Auto-PGD on DLR, nine targets", lambda s, r, e: APGD(s, targeted_dlr, e, r, targets=9)),
    "square": ("Square, scores only (Andriushchenko et al., 2020); steps are queries", lambda s, r, e: Square(s)),
    "random": ("random points of the ball; steps are samples", lambda s, r, e: RandomSearch(s)),
    "ensemble": (
        "APGD-CE, APGD-DLR targeted, Square: the worst case of each example",
        lambda s, r, e: Ensemble(
            (APGD(s, estimator=e, restarts=r), APGD(s, targeted_dlr, e, targets=9), Square(20 * s))
        ),
    ),
}

BUILT_IN: dict[str, Attacker] = {
    "noise": Attacker("100 random points of the ball", lambda _: RandomSearch(100)),
}
"""Controls that every target has."""


def chosen(options: Mapping[str, Any]) -> Attacker:
    """The attack that a job's options describe.

    Options: ``attack`` (a name of :data:`ATTACKS`), ``steps``, ``restarts``, ``eot`` (draws; 0 for none),
    ``spsa`` (pairs; 0 for none), ``bpda`` (paths, or ``PATH=identity``), ``straight_through``.
    Raises ValueError for a name or surrogate that there is not.
    """
    name = options["attack"]
    if name not in ATTACKS:
        raise ValueError(f"no attack {name!r}; attacks: {', '.join(ATTACKS)}")
    about, setting = ATTACKS[name]
    estimator: Estimator = SPSA(options["spsa"]) if options.get("spsa") else autograd
    if options.get("eot"):
        estimator = EOT(options["eot"], estimator)
    attack = setting(options["steps"], options["restarts"], estimator)
    view = _views(options.get("bpda", ()), bool(options.get("straight_through")))
    return Attacker(about, lambda _: attack, view, plain=view is None and not options.get("eot"))


def _views(parts: Sequence[str], inline: bool) -> View | None:
    views: list[View] = [_bpda(part) for part in parts]
    if inline:
        views.append(straight_through)
    if not views:
        return None

    def view(model: nn.Module) -> nn.Module:
        viewed = views[0](model)
        for depth, further in enumerate(views[1:], 1):
            viewed = further(viewed) if further is straight_through else _bpda(parts[depth], "model." * depth)(viewed)
        return viewed

    return view


def _bpda(part: str, prefix: str = "") -> View:
    path, _, surrogate = part.partition("=")
    if surrogate not in ("", "identity"):
        raise ValueError(f"no surrogate {surrogate!r} for part {path!r}: on the command line it is identity")
    return bpda(prefix + path, identity)
