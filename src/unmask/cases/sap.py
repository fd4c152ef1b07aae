"""Stochastic activation pruning: each pass prunes anew; averaged gradients see through it."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from unmask.attacks.apgd import APGD
from unmask.attacks.ensemble import Ensemble
from unmask.attacks.settings import pgd
from unmask.cases.case import Attacker, Case
from unmask.cases.shared import CIFAR10, own_gradient
from unmask.defenses.sap import SAP, KeepEach
from unmask.gradients.bpda import bpda
from unmask.gradients.eot import EOT
from unmask.losses import beyond, margin, targeted_dlr
from unmask.nets import residual_net
from unmask.threats import Linf, Threat

__all__ = ["CASES"]

_DRAWS, _STEPS = 4, 20


def _attackers(beyond_by: float) -> dict[str, Attacker]:
    """The search goes on to this margin, four standard deviations of the margin over draws."""
    loss = beyond(margin, beyond_by)
    return {
        "plain": own_gradient(_DRAWS * _STEPS),
        "eot": Attacker(
            f"EOT over {_DRAWS} draws: PGD on the margin, as many gradients as the plain attack",
            lambda _: pgd(_STEPS, loss, EOT(_DRAWS), size=0.25),
        ),
        "bpda": Attacker(
            f"BPDA, each pruning the identity in the backward pass, EOT over {_DRAWS} draws: PGD on the margin, "
            "APGD on DLR with 3 targets",
            lambda _: Ensemble(
                (
                    pgd(_STEPS, loss, EOT(_DRAWS), size=0.25),
                    pgd(100, loss, EOT(_DRAWS)),
                    APGD(40, targeted_dlr, EOT(_DRAWS), targets=3),
                )
            ),
            view=bpda("prune"),
        ),
    }


def _case(
    name: str,
    threat: Threat,
    build: Callable[[], nn.Module],
    note: str,
    beyond_by: float,
    *,
    claimed: float | None = None,
    published: float | None = None,
    earlier: float | None = None,
) -> Case:
    return Case(
        name=name,
        defense="stochastic activation pruning",
        kind="stochastic",
        data="cifar10",
        threat=threat,
        citation="Dhillon et al., ICLR 2018",
        build=build,
        attackers=_attackers(beyond_by),
        train=None,
        base="plain-cifar10",
        draws=5,
        claimed=claimed,
        published=published,
        earlier=earlier,
        note=note,
    )


def _cases(
    middle: str, build: Callable[[], nn.Module], note: str, beyond_by: float, published: float
) -> tuple[Case, Case]:
    smaller = f"{note}; at the size of its authors"
    return (
        _case(f"{middle}-cifar10", CIFAR10, build, note, beyond_by, published=published, earlier=0.0),
        _case(f"{middle}-eps4-cifar10", Linf(4 / 255), build, smaller, beyond_by, claimed=0.51),
    )


CASES = (
    *_cases(
        "sap",
        lambda: SAP(residual_net()),
        "the authors' definition: after each activation, as many draws as units, with replacement",
        beyond_by=2.0,
        published=0.001,
    ),
    *_cases(
        "sap-athalye",
        lambda: SAP(residual_net(), KeepEach(), nn.Conv2d),
        "the weaker variant attacked in 2018: each convolution's output, each unit by itself, 2n expected draws",
        beyond_by=4.0,
        published=0.0,
    ),
)
