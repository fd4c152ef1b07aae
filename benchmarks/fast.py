"""The fast ensemble beside the attacks of AutoAttack that it stands for, on the same images.

    python -m benchmarks.fast madry-cifar10 --n 200 [--square 5000]

Prints the robust accuracy that each leaves, as the judge finds it, and images forward and backward; and on how many
images the fast ensemble is weaker and stronger. FAB, the fourth attack of AutoAttack, is left out.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

from unmask.attacking import run_attack
from unmask.attacks.auto_pgd.apgd import APGD
from unmask.attacks.black_box.square import Square
from unmask.attacks.combined.ensemble import Ensemble
from unmask.attacks.combined.fast import fast
from unmask.attacks.problem import Attack
from unmask.cases import Case, find_case
from unmask.data import load
from unmask.judging import Judge
from unmask.losses import targeted_dlr
from unmask.models.allocator import keep_freed_memory
from unmask.statistics import accuracy

_BATCH = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--square", type=int, default=0, help="queries of Square; 0 leaves it out")
    options = parser.parse_args()
    keep_freed_memory()
    case = find_case(options.case)
    model = case.load().eval().requires_grad_(False)
    parts: tuple[Attack, ...] = (APGD(100), APGD(100, targeted_dlr, targets=9))
    print("| attack | n | robust accuracy, % | images forward | images backward | CPU seconds |")
    print("|---|---|---|---|---|---|")
    quick = _row("fast", fast(), case, model, options.n)
    full = _row("APGD-CE, APGD-T", Ensemble(parts), case, model, options.n)
    if options.square:
        full = _row("APGD-CE, APGD-T, Square", Ensemble((*parts, Square(options.square))), case, model, options.n)
    print(f"\nfast is weaker on {int((quick > full).sum())} images, stronger on {int((quick < full).sum())}")


def _row(name: str, attack: Attack, case: Case, model: nn.Module, n: int) -> Tensor:
    """What an attack leaves of each image (N,); prints it."""
    images, labels = load(case.data, n=n).batch()
    judge, started = Judge(model, case.threat), time.process_time()
    results = [
        run_attack(attack, model, images[index], labels[index], judge=judge, index=index)
        for index in torch.arange(n).split(_BATCH)
    ]
    left = torch.cat([one.verdict.robust_fraction for one in results])
    found = accuracy(left.tolist())
    forwards = judge.passes.forwards + sum(one.passes.forwards for one in results)
    backwards = sum(one.passes.backwards for one in results)
    share = f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    print(f"| {name} | {n} | {share} | {forwards} | {backwards} | {time.process_time() - started:.0f} |", flush=True)
    return left


if __name__ == "__main__":
    main()
