"""unmask: is a classifier's adversarial robustness real, or does it only hide the gradient?

The names below are what a user needs to attack a model of their own; each is imported when it is first
used, so that importing the package, or its reports, does not import torch.
"""

from __future__ import annotations

import os
from importlib import import_module, metadata
from typing import Any

# In which order MKL adds up depends, on some processors, on where a row lies in memory; not so in this mode.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = metadata.version("unmask")

_HOMES = {
    "APGD": "unmask.attacks.apgd",
    "attackable": "unmask.adapters",
    "AttackSpec": "unmask.cases",
    "audit": "unmask.auditing.run",
    "autograd": "unmask.gradients.autograd",
    "BlackBoxModel": "unmask.black_box_models",
    "bpda": "unmask.gradients.bpda",
    "bpda_function": "unmask.gradients.functions",
    "bypass": "unmask.gradients.bpda",
    "Case": "unmask.cases",
    "compare": "unmask.report.compare",
    "cross_entropy": "unmask.losses",
    "cw": "unmask.attacks.aliases",
    "dequantized": "unmask.gradients.dequantized",
    "dlr": "unmask.losses",
    "Ensemble": "unmask.attacks.ensemble",
    "EOT": "unmask.gradients.eot",
    "fgsm": "unmask.attacks.aliases",
    "finite_differences": "unmask.gradients.finite_differences",
    "finite_gradients": "unmask.gradients.finite_gradients",
    "fit_surrogate": "unmask.gradients.fit_surrogate",
    "GradientAttack": "unmask.attacks.gradient_attack",
    "HopSkipJump": "unmask.attacks.hop_skip_jump",
    "http_model": "unmask.black_box_models",
    "identity": "unmask.gradients.bpda",
    "Judge": "unmask.judging",
    "L1": "unmask.threats",
    "L2": "unmask.threats",
    "latent": "unmask.attacks.aliases",
    "Latent": "unmask.gradients.spaces",
    "Linf": "unmask.threats",
    "margin": "unmask.losses",
    "mifgsm": "unmask.attacks.aliases",
    "Output": "unmask.types",
    "pgd": "unmask.attacks.aliases",
    "Pixels": "unmask.gradients.spaces",
    "Problem": "unmask.attacks.problem",
    "RandomSearch": "unmask.attacks.random_search",
    "run_attack": "unmask.attacking",
    "select_output": "unmask.forms",
    "sign_agreement": "unmask.gradients.eot",
    "signal_to_noise": "unmask.gradients.eot",
    "skip_to": "unmask.gradients.part_views",
    "Snapped": "unmask.attacks.snapped",
    "SPSA": "unmask.gradients.spsa",
    "Square": "unmask.attacks.square",
    "straight_through": "unmask.gradients.straight_through",
    "submodule_only": "unmask.gradients.part_views",
    "submodule_output": "unmask.gradients.part_views",
    "Tanh": "unmask.gradients.spaces",
    "TimeLimited": "unmask.attacks.time_limited",
    "train_surrogate": "unmask.gradients.surrogate_model",
    "Transfer": "unmask.attacks.transfer",
    "two_classes": "unmask.forms",
    "unrolled": "unmask.gradients.straight_through",
    "WithView": "unmask.attacks.with_view",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unmask' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
