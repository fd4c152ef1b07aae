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
    "TargetedHalving",
    "Transfer",
    "WithView",
    "cw",
    "fast",
    "fgsm",
    "mifgsm",
    "pgd",
    "external_attack",
    # losses
    "cross_entropy",
    "dlr",
    "margin",
    "narrow_straight_through",
    "targeted_dlr",
    "targeted_margin",
    "targeted_probability_margin",
    # views: what gradients pass through
    "agreement",
    "bpda",
    "bpda_function",
    "bypass",
    "dequantized",
    "finite_differences",
    "finite_gradients",
    "fit_head",
    "fit_refusal",
    "fit_skip",
    "fit_surrogate",
    "refusal_head",
    "skip_to",
    "straight_through",
    "soft_votes",
    "median_votes",
    "submodule_output",
    "linear_agreement",
    "linear_output",
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
    "ModelForm",
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
    # errors
    "UnmaskError",
    # data sets: data.load
    "data",
]

from . import data
from .adapters import attackable
from .attacking import AttackResult, run_attack
from .attacks.aliases import cw, fgsm, mifgsm, pgd
from .attacks.auto_pgd.apgd import APGD
from .attacks.auto_pgd.targeted_halving import TargetedHalving
from .attacks.black_box.hop_skip_jump import HopSkipJump
from .attacks.black_box.random_search import RandomSearch
from .attacks.black_box.square import Square
from .attacks.black_box.transfer import Transfer
from .attacks.combined.ensemble import Ensemble
from .attacks.combined.fast import fast
from .attacks.combined.snapped import Snapped
from .attacks.combined.time_limited import Doubling, TimeLimited
from .attacks.combined.with_view import WithView
from .attacks.external import external_attack
from .attacks.gradient_attack import GradientAttack
from .attacks.problem import Problem
from .auditing.run import audit
from .cases import AttackSpec, Case
from .errors import UnmaskError
from .evaluation.models.load_model import load_model
from .gradients.autograd import autograd
from .gradients.bpda import bpda, bypass
from .gradients.dequantized import dequantized
from .gradients.eot import EOT, sign_agreement, signal_to_noise
from .gradients.finite_gradients import finite_gradients
from .gradients.functions import bpda_function
from .gradients.parts.agreement import agreement, linear_agreement
from .gradients.parts.linear_output import linear_output
from .gradients.parts.skip_to import skip_to
from .gradients.parts.submodule_output import submodule_output
from .gradients.parts.votes import median_votes, soft_votes
from .gradients.spaces import Latent, Pixels, Tanh
from .gradients.spsa import SPSA, gaussian
from .gradients.straight_through import narrow_straight_through, straight_through, unrolled
from .gradients.surrogates.finite_differences import finite_differences
from .gradients.surrogates.fit_refusal import fit_refusal, refusal_head
from .gradients.surrogates.fit_surrogate import fit_skip, fit_surrogate
from .gradients.surrogates.surrogate_model import fit_head, train_surrogate
from .judging import Judge, JudgedExamples, judge
from .losses import cross_entropy, dlr, margin, targeted_dlr, targeted_margin, targeted_probability_margin
from .models.black_box_models import BlackBoxModel, http_model
from .models.forms import ModelForm, select_output, two_classes
from .report.audit_report import AuditReport
from .report.compare import compare
from .threats import L1, L2, Linf
from .types import Output

__version__: str
