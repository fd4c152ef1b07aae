"""The cases by name, and the suites that they make up."""

from difflib import get_close_matches

from unmask.cases import feature_distillation, plain
from unmask.cases.case import AttackSpec, Case, ImageProbe, StrengthSweep
from unmask.cases.iclr2018 import (
    cascade,
    defense_gan,
    lid,
    madry,
    pixeldefend,
    randomization,
    sap,
    thermometer,
    transforms,
)
from unmask.cases.post2018.inputs import (
    barrage,
    diffpure,
    matrix_estimation,
    mixup_inference,
    pixel_deflection,
    score_purification,
)
from unmask.cases.post2018.networks import (
    diversity,
    k_winners,
    local_winners,
    mixed_precision,
    multi_resolution,
    output_codes,
    self_ensemble,
)
from unmask.cases.post2018.test_time import anti_adversary, neighbours, odds, test_time_training
from unmask.cases.selfstudy import binary, injection, inputs, knn, majority, ordinary, randomised
from unmask.errors import UnmaskError

__all__ = ["CASES", "SUITES", "AttackSpec", "Case", "ImageProbe", "StrengthSweep", "find_case"]

_MODULES = (
    plain,
    madry,
    cascade,
    thermometer,
    sap,
    lid,
    transforms,
    randomization,
    pixeldefend,
    defense_gan,
    feature_distillation,
    local_winners,
    output_codes,
    mixed_precision,
    anti_adversary,
    neighbours,
    diversity,
    diffpure,
    barrage,
    knn,
    majority,
    binary,
    randomised,
    injection,
    inputs,
    ordinary,
    k_winners,
    self_ensemble,
    matrix_estimation,
    odds,
    pixel_deflection,
    mixup_inference,
    multi_resolution,
    test_time_training,
    score_purification,
)

CASES: dict[str, Case] = {case.name: case for module in _MODULES for case in module.CASES}

_TABLE = """
    thermometer-cifar10 thermometer-adv-cifar10 lid-cifar10 bitdepth-imagenet jpeg-imagenet tvm-imagenet
    quilting-imagenet crop-imagenet transforms-imagenet sap-cifar10 randomization-imagenet pixeldefend-cifar10
    defense-gan-mnist madry-cifar10 cascade-cifar10"""

_LATER = """
    output-codes-mnist mixed-precision-mnist anti-adversary-cifar10 anti-adversary-robust-cifar10
    deep-neighbours-mnist diversity-mnist lwta-digits diffpure-cifar10 barrage-cifar10 k-winners-mnist
    matrix-estimation-mnist odds-cifar10 pixel-deflection-cifar10 mixup-inference-digits multi-resolution-digits
    test-time-training-digits self-ensemble-cifar10 score-purification-cifar10
    plain-mnist madry-mnist plain-cifar10 madry-cifar10 plain-digits madry-digits"""

_COURSE = """
    baseline blur temperature mergebinary labelsmooth jump majority discretize randomneuron transform injection knn
    advtrain"""

SUITES: dict[str, tuple[str, ...]] = {
    **{
        suite: tuple(name for name, case in CASES.items() if case.data.startswith(suite))
        for suite in ("digits", "mnist", "cifar10", "imagenet")
    },
    "iclr2018": tuple(_TABLE.split()),
    "post2018": tuple(_LATER.split()),
    "selfstudy": tuple(f"selfstudy-{name}-cifar10" for name in _COURSE.split()),
}
"""The cases of a data set, those of Athalye et al.'s table in its order, later defenses with their controls, and those
of Google's self-study course in its order."""


def find_case(name: str) -> Case:
    """The case of that name; UnmaskError names similar cases, or all cases."""
    if name not in CASES:
        like = get_close_matches(name, CASES)
        raise UnmaskError(f"no case {name!r}; {'did you mean' if like else 'cases:'} {', '.join(like or CASES)}")
    return CASES[name]
