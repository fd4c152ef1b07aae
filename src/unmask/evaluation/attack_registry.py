"""An attack as the command line names it: a setting, an estimator, and views, each by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from unmask.attacks.aliases import cw, fgsm, mifgsm, pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.black_box.hop_skip_jump import HopSkipJump
from unmask.attacks.black_box.random_search import RandomSearch
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.combined.fast import fast
from unmask.attacks.combined.snapped import over_grid
from unmask.attacks.problem import Attack
from unmask.cases import AttackSpec
from unmask.errors import UnmaskError
from unmask.gradients.autograd import autograd
from unmask.gradients.bpda import View, bpda
from unmask.gradients.eot import EOT
from unmask.gradients.spsa import SPSA
from unmask.gradients.straight_through import straight_through
from unmask.kinds import Access
from unmask.losses import dlr, targeted_dlr
from unmask.types import Estimator

__all__ = ["ATTACKS", "BUILT_IN", "RegisteredAttack", "attack_from_options"]


@dataclass(frozen=True)
class RegisteredAttack:
    """An attack that waits for its steps, its restarts and the estimator of its gradients."""

    description: str
    make: Callable[[int, int, Estimator], Attack]
    access: Access = Access.WHITE_BOX  # as of an Attacker: others take no gradient

    @property
    def gradients(self) -> bool:
        """Whether it takes any."""
        return self.access == Access.WHITE_BOX


ATTACKS: dict[str, RegisteredAttack] = {
    "fgsm": RegisteredAttack("one step (Goodfellow et al., 2015)", lambda _, __, e: fgsm(estimator=e)),
    "pgd": RegisteredAttack(
        "projected gradient ascent (Madry et al., 2018)", lambda s, r, e: pgd(s, estimator=e, restarts=r)
    ),
    "mifgsm": RegisteredAttack(
        "PGD with momentum (Dong et al., 2018)", lambda s, _, e: replace(mifgsm(s), estimator=e)
    ),
    "cw": RegisteredAttack(
        "Carlini & Wagner (2017), within the ball", lambda s, r, e: cw(s, estimator=e, restarts=max(r, 3))
    ),
    "apgd": RegisteredAttack(
        "Auto-PGD on cross entropy (Croce & Hein, 2020)", lambda s, r, e: APGD(s, estimator=e, restarts=r)
    ),
    "apgd-dlr": RegisteredAttack("Auto-PGD on DLR", lambda s, r, e: APGD(s, dlr, e, r)),
    "apgd-targeted": RegisteredAttack(
        "Auto-PGD on DLR, nine targets", lambda s, r, e: APGD(s, targeted_dlr, e, r, targets=9)
    ),
    "square": RegisteredAttack(
        "Square, scores only (Andriushchenko et al., 2020); steps are queries",
        lambda s, _, __: Square(s),
        Access.SCORES,
    ),
    "hop-skip-jump": RegisteredAttack(
        "HopSkipJump, labels only (Chen et al., 2020); steps are queries",
        lambda s, _, __: HopSkipJump(s),
        Access.LABELS,
    ),
    "random": RegisteredAttack(
        "random points of the ball; steps are samples", lambda s, _, __: RandomSearch(s), Access.SCORES
    ),
    "fast": RegisteredAttack(
        "APGD on the margin, targeted APGD with successive halving, Square: a tenth of AutoAttack's passes",
        lambda s, _, e: fast(s, e),
    ),
    "ensemble": RegisteredAttack(
        "APGD-CE, APGD-DLR targeted, Square: the worst case of each example",
        lambda s, r, e: Ensemble(
            (APGD(s, estimator=e, restarts=r), APGD(s, targeted_dlr, e, targets=9), Square(20 * s))
        ),
    ),
}

BUILT_IN: dict[str, AttackSpec] = {
    "noise": AttackSpec("100 random points of the ball", lambda _: RandomSearch(100)),
}
"""Controls that every target has."""


def attack_from_options(options: Mapping[str, Any]) -> AttackSpec:
    """The attack that a job's options describe.

    Options: ``attack`` (a name of :data:`ATTACKS`), ``steps``, ``restarts``, ``eot`` (draws; 0 for none),
    ``spsa`` (pairs; 0 for none), ``bpda`` (paths, or ``PATH=identity``), ``straight_through``, and ``levels`` of the
    grid that candidates lie on (0, or nothing, for none). Gradients are taken in float32: code that others wrote need
    not bear a narrower type.

    Raises UnmaskError for a name or surrogate that there is not, and for a technique of gradients where
    the attack takes none; the attacker's view raises it for a path that the model does not have.

    >>> attack_from_options({"attack": "pgd", "steps": 10, "restarts": 1}).plain
    True
    """
    name = options["attack"]
    if name not in ATTACKS:
        raise UnmaskError(f"no attack {name!r}; attacks: {', '.join(ATTACKS)}")
    setting = ATTACKS[name]
    gradient_options = [option for option in ("eot", "spsa", "bpda", "straight_through") if options.get(option)]
    if gradient_options and not setting.gradients:
        raise UnmaskError(f"{name} takes no gradient", f"leave out --{gradient_options[0].replace('_', '-')}")
    estimator: Estimator = SPSA(options["spsa"]) if options.get("spsa") else autograd
    if options.get("eot"):
        estimator = EOT(options["eot"], estimator)
    levels = options.get("levels", 0)
    attack = over_grid(levels, setting.make(options["steps"], options["restarts"], estimator))
    return AttackSpec(
        f"{setting.description}, over the grid of k/{levels}" if levels else setting.description,
        lambda _: attack,
        _view([_path(part) for part in options.get("bpda", ())], bool(options.get("straight_through"))),
        plain=setting.gradients and not gradient_options and not levels,
        access=Access.SCORES if options.get("spsa") else setting.access,  # differences of scores need nothing else
        low_precision=False,
    )


def _path(part: str) -> str:
    path, _, surrogate = part.partition("=")
    if surrogate not in ("", "identity"):
        raise UnmaskError(f"no surrogate {surrogate!r} for part {path!r}: on the command line it is identity")
    return path


def _view(paths: Sequence[str], inline: bool) -> View | None:
    """All parts by the identity, then, on request, all inline operations."""
    if not paths and not inline:
        return None

    def view(model: nn.Module) -> nn.Module:
        for path in paths:
            model = bpda(path)(model)
        return straight_through(model) if inline else model

    return view
