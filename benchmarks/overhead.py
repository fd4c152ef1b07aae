"""What PGD costs beside its bare forward and backward passes, and what bfloat16 would gain on this processor."""

from __future__ import annotations

from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.subjects import Subject, arguments, ratio, subjects, timed
from unmask.attacks.aliases import pgd
from unmask.attacks.problem import Problem
from unmask.models.model_wrappers import batch_invariant, frozen_copy
from unmask.randomness import make_keys

__all__ = ["main"]

STEPS = 40
SIZE = 2.5 / STEPS  # of a step, as a share of eps
OVERHEAD = 1.05


def main() -> None:
    """The command line."""
    options = arguments(__doc__).parse_args()
    for subject in subjects(options):
        overhead(subject, options.rounds)
    print(f"bfloat16 matrix products: {_bfloat16_speed():.1f} times as fast as float32\n")


def overhead(subject: Subject, rounds: int) -> None:
    """PGD without early stopping in float32, over as many bare forward and backward passes."""
    model, (x, y) = frozen_copy(subject.model), subject.batch
    keys = make_keys(0, torch.arange(len(x)), "benchmark")
    problem = Problem(batch_invariant(model), x, y, subject.threat, keys, _nobody)
    attack = pgd(STEPS, rel_step_size=SIZE, early_stop=False)
    judge = subject.judge()

    def bare() -> None:
        for _ in range(STEPS):
            z = x.detach().requires_grad_(True)
            torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    times = timed(
        {
            "bare passes": bare,
            "unmask": lambda: attack(problem),
            "of it: the last point's value": forward,
            "besides: the judge's verdict": lambda: judge.verdict(x, x, y, keys),
        },
        rounds,
    )
    print(f"{subject.name}: PGD-{STEPS} on {len(x)} images, float32, no early stopping (at most {OVERHEAD})")
    for name in times:
        print(f"  {name:32}{median(times[name]):8.3f} s {ratio(times, name, 'bare passes'):8.3f}")
    print()


def _bfloat16_speed() -> float:
    single = torch.rand(1024, 1024)
    half = single.bfloat16()
    times = timed({"float32": lambda: single @ single, "bfloat16": lambda: half @ half}, 9)
    return ratio(times, "float32", "bfloat16")


def _nobody(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
    raise AssertionError("without early stopping the judge is not asked")


if __name__ == "__main__":
    main()
