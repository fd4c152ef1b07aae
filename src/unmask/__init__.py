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
    "Attacker": "unmask.cases",
    "Case": "unmask.cases",
    "Descent": "unmask.attacks.descent",
    "EOT": "unmask.gradients.eot",
    "Ensemble": "unmask.attacks.ensemble",
    "Judge": "unmask.judging",
    "L1": "unmask.threats",
    "L2": "unmask.threats",
    "Latent": "unmask.gradients.spaces",
    "Linf": "unmask.threats",
    "Output": "unmask.types",
    "Pixels": "unmask.gradients.spaces",
    "Problem": "unmask.attacks.problem",
    "RandomSearch": "unmask.attacks.random_search",
    "ScoresOnly": "unmask.scores",
    "SPSA": "unmask.gradients.spsa",
    "HopSkipJump": "unmask.attacks.hop_skip_jump",
    "Snapped": "unmask.attacks.snapped",
    "Square": "unmask.attacks.square",
    "Tanh": "unmask.gradients.spaces",
    "Through": "unmask.attacks.through",
    "Transfer": "unmask.attacks.transfer",
    "Until": "unmask.attacks.until",
    "attackable": "unmask.adapters",
    "audit": "unmask.auditing.run",
    "autograd": "unmask.gradients.autograd",
    "bpda": "unmask.gradients.bpda",
    "bpda_function": "unmask.gradients.functions",
    "bypass": "unmask.gradients.bpda",
    "compare": "unmask.report.compare",
    "cross_entropy": "unmask.losses",
    "cw": "unmask.attacks.settings",
    "dequantized": "unmask.gradients.dequantized",
    "differences": "unmask.gradients.differences",
    "dlr": "unmask.losses",
    "fgsm": "unmask.attacks.settings",
    "finite_gradients": "unmask.gradients.finite",
    "fit_copy": "unmask.gradients.copied",
    "fit_surrogate": "unmask.gradients.fitted",
    "graft": "unmask.gradients.rejoin",
    "identity": "unmask.gradients.bpda",
    "latent": "unmask.attacks.settings",
    "margin": "unmask.losses",
    "mifgsm": "unmask.attacks.settings",
    "only": "unmask.gradients.rejoin",
    "pgd": "unmask.attacks.settings",
    "read_out": "unmask.gradients.rejoin",
    "remote": "unmask.scores",
    "select_output": "unmask.forms",
    "sign_agreement": "unmask.gradients.eot",
    "signal_to_noise": "unmask.gradients.eot",
    "straight_through": "unmask.gradients.straight_through",
    "trial": "unmask.trials",
    "two_classes": "unmask.forms",
    "unrolled": "unmask.gradients.straight_through",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unmask' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
