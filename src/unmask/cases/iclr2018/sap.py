"""Stochastic activation pruning: each pass draws new units; averaged gradients (EOT) break it."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from unmask.attacks.aliases import pgd
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.combined.ensemble import Ensemble
from unmask.cases.case import AttackSpec, Case
from unmask.cases.common import CIFAR10, own_gradient
from unmask.cases.literature import earlier_run, robust_ml, table_of_2018
from unmask.defenses.sap import SAP, KeepEach
from unmask.gradients.bpda import bpda
from unmask.gradients.eot import EOT
from unmask.kinds import Obfuscation
from unmask.losses import margin, targeted_dlr, with_confidence
from unmask.nets import residual_net
from unmask.records import Figure
from unmask.threats import Linf, Threat

__all__ = ["CASES"]

_DRAWS, _STEPS = 4, 20


def _attackers(beyond_by: float) -> dict[str, AttackSpec]:
    """The search continues to this margin, four standard deviations of the margin over draws."""
    loss = with_confidence(margin, beyond_by)
    return {
        "plain": own_gradient(_DRAWS * _STEPS),
        "eot": AttackSpec(
            f"EOT over {_DRAWS} draws: PGD on the margin, as many gradients as the plain attack",
            lambda _: pgd(_STEPS, loss, EOT(_DRAWS), rel_step_size=0.25),
        ),
        "bpda": AttackSpec(
            f"BPDA, each pruning the identity in the backward pass, EOT over {_DRAWS} draws: PGD on the margin, "
            "APGD on DLR with 3 targets",
            lambda _: Ensemble(
                (
                    pgd(_STEPS, loss, EOT(_DRAWS), rel_step_size=0.25),
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
    claimed: Figure | None = None,
    published: Figure | None = None,
    earlier: Figure | None = None,
) -> Case:
    return Case(
        name=name,
        defense="stochastic activation pruning",
        obfuscation=(Obfuscation.STOCHASTIC,),
        data="cifar10",
        threat=threat,
        citation="Dhillon et al., ICLR 2018",
        build=build,
        attacks=_attackers(beyond_by),
        train=None,
        base_case="plain-cifar10",
        draws=5,
        claimed=claimed,
        published=published,
        replicated=earlier,
        note=note,
    )


_DEFINITION = "the authors' definition: after each activation, as many draws as units, with replacement"
_VARIANT = "the weaker variant attacked in 2018: each convolution's output, each unit by itself, 2n expected draws"
_SMALLER = "at the size of its authors"

_ERRATUM = Figure(
    0.001,
    "Dhillon & Carlini, Erratum Concerning the Obfuscated Gradients Attack on SAP, 2020",
    "https://arxiv.org/abs/2010.00071",
    "unverified: quoted from memory; by BPDA on the authors' own definition, which the attack of 2018 did not break",
)


def _defined() -> SAP:
    return SAP(residual_net())


def _attacked_in_2018() -> SAP:
    return SAP(residual_net(), KeepEach(), nn.Conv2d)


CASES = (
    _case("sap-cifar10", CIFAR10, _defined, _DEFINITION, 2.0, published=_ERRATUM),
    _case(
        "sap-eps4-cifar10",
        Linf(4 / 255),
        _defined,
        f"{_DEFINITION}; {_SMALLER}",
        2.0,
        claimed=robust_ml(0.51),
    ),
    _case(
        "sap-athalye-cifar10",
        CIFAR10,
        _attacked_in_2018,
        _VARIANT,
        4.0,
        published=table_of_2018(0.0),
        earlier=earlier_run(0.0),
    ),
    _case("sap-athalye-eps4-cifar10", Linf(4 / 255), _attacked_in_2018, f"{_VARIANT}; {_SMALLER}", 4.0),
)
