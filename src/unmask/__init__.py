"""unmask: is a classifier's adversarial robustness real, or does the model only mask its gradient?

The names below are what a user needs to attack a model of their own. Each is imported when it is first used, so that
importing the package, or its reports, does not import torch; type checkers read the imports at the end.
"""

from __future__ import annotations

import os
from importlib import import_module, metadata
from typing import TYPE_CHECKING

__all__ = [  # noqa: RUF022 - by theme
    "__version__",
    # examine and attack
    "audit",
    "AuditReport",
    "run_attack",
    "AttackResult",
    "judge",
    "JudgedExamples",
    "Judge",
    "compare",
    # the ball
    "Linf",
    "L2",
    "L1",
    # attacks
    "APGD",
    "Doubling",
    "Ensemble",
    "GradientAttack",
    "HopSkipJump",
    "Problem",
    "RandomSearch",
    "Snapped",
    "Square",
    "TimeLimited",
    "Transfer",
    "WithView",
    "cw",
    "fgsm",
    "mifgsm",
    "pgd",
    "external_attack",
    # losses
    "cross_entropy",
    "dlr",
    "margin",
    "targeted_dlr",
    # views: what gradients pass through
    "bpda",
    "bpda_function",
    "bypass",
    "dequantized",
    "finite_differences",
    "finite_gradients",
    "fit_surrogate",
    "skip_to",
    "straight_through",
    "submodule_output",
    "unrolled",
    # estimators of gradients, and spaces to search
    "EOT",
    "SPSA",
    "autograd",
    "gaussian",
    "sign_agreement",
    "signal_to_noise",
    "Latent",
    "Pixels",
    "Tanh",
    # models
    "BlackBoxModel",
    "Output",
    "attackable",
    "http_model",
    "load_model",
    "select_output",
    "train_surrogate",
    "two_classes",
    # cases
    "AttackSpec",
    "Case",
]

# In which order MKL adds up depends, on some processors, on where a row lies in memory; not so in this mode.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = metadata.version("unmask")

_MODULES = {
    "unmask.adapters": "attackable",
    "unmask.attacking": "run_attack AttackResult",
    "unmask.attacks.aliases": "cw fgsm mifgsm pgd",
    "unmask.attacks.auto_pgd.apgd": "APGD",
    "unmask.attacks.combined.ensemble": "Ensemble",
    "unmask.attacks.external": "external_attack",
    "unmask.attacks.gradient_attack": "GradientAttack",
    "unmask.attacks.black_box.hop_skip_jump": "HopSkipJump",
    "unmask.attacks.problem": "Problem",
    "unmask.attacks.black_box.random_search": "RandomSearch",
    "unmask.attacks.combined.snapped": "Snapped",
    "unmask.attacks.black_box.square": "Square",
    "unmask.attacks.combined.time_limited": "Doubling TimeLimited",
    "unmask.attacks.black_box.transfer": "Transfer",
    "unmask.attacks.combined.with_view": "WithView",
    "unmask.auditing.run": "audit",
    "unmask.evaluation.models.load_model": "load_model",
    "unmask.models.black_box_models": "BlackBoxModel http_model",
    "unmask.cases": "AttackSpec Case",
    "unmask.models.forms": "select_output two_classes",
    "unmask.gradients.autograd": "autograd",
    "unmask.gradients.bpda": "bpda bypass",
    "unmask.gradients.dequantized": "dequantized",
    "unmask.gradients.eot": "EOT sign_agreement signal_to_noise",
    "unmask.gradients.surrogates.finite_differences": "finite_differences",
    "unmask.gradients.finite_gradients": "finite_gradients",
    "unmask.gradients.surrogates.fit_surrogate": "fit_surrogate",
    "unmask.gradients.functions": "bpda_function",
    "unmask.gradients.part_views": "skip_to submodule_output",
    "unmask.gradients.spaces": "Latent Pixels Tanh",
    "unmask.gradients.spsa": "SPSA gaussian",
    "unmask.gradients.straight_through": "straight_through unrolled",
    "unmask.gradients.surrogates.surrogate_model": "train_surrogate",
    "unmask.judging": "judge JudgedExamples Judge",
    "unmask.losses": "cross_entropy dlr margin targeted_dlr",
    "unmask.report.audit_report": "AuditReport",
    "unmask.report.compare": "compare",
    "unmask.threats": "Linf L2 L1",
    "unmask.types": "Output",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:  # tests/test_surface.py holds these against the table
    from unmask.adapters import attackable
    from unmask.attacking import AttackResult, run_attack
    from unmask.attacks.aliases import cw, fgsm, mifgsm, pgd
    from unmask.attacks.auto_pgd.apgd import APGD
    from unmask.attacks.black_box.hop_skip_jump import HopSkipJump
    from unmask.attacks.black_box.random_search import RandomSearch
    from unmask.attacks.black_box.square import Square
    from unmask.attacks.black_box.transfer import Transfer
    from unmask.attacks.combined.ensemble import Ensemble
    from unmask.attacks.combined.snapped import Snapped
    from unmask.attacks.combined.time_limited import Doubling, TimeLimited
    from unmask.attacks.combined.with_view import WithView
    from unmask.attacks.external import external_attack
    from unmask.attacks.gradient_attack import GradientAttack
    from unmask.attacks.problem import Problem
    from unmask.auditing.run import audit
    from unmask.cases import AttackSpec, Case
    from unmask.evaluation.models.load_model import load_model
    from unmask.gradients.autograd import autograd
    from unmask.gradients.bpda import bpda, bypass
    from unmask.gradients.dequantized import dequantized
    from unmask.gradients.eot import EOT, sign_agreement, signal_to_noise
    from unmask.gradients.finite_gradients import finite_gradients
    from unmask.gradients.functions import bpda_function
    from unmask.gradients.part_views import skip_to, submodule_output
    from unmask.gradients.spaces import Latent, Pixels, Tanh
    from unmask.gradients.spsa import SPSA, gaussian
    from unmask.gradients.straight_through import straight_through, unrolled
    from unmask.gradients.surrogates.finite_differences import finite_differences
    from unmask.gradients.surrogates.fit_surrogate import fit_surrogate
    from unmask.gradients.surrogates.surrogate_model import train_surrogate
    from unmask.judging import Judge, JudgedExamples, judge
    from unmask.losses import cross_entropy, dlr, margin, targeted_dlr
    from unmask.models.black_box_models import BlackBoxModel, http_model
    from unmask.models.forms import select_output, two_classes
    from unmask.report.audit_report import AuditReport
    from unmask.report.compare import compare
    from unmask.threats import L1, L2, Linf
    from unmask.types import Output
else:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'unmask' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
