"""Ensembles of unmask beside torchattacks' AutoAttack, on the same images of sound networks.

    python -m benchmarks.autoattack madry-digits madry-mnist --n 1000 [--attacks fast ensemble] [--weights runs/w]

Needs ``torchattacks``; ``--without-theirs`` compares unmask's attacks with the last of them. Prints robust accuracy, as
unmask's judge finds it, images forward and backward, seconds of the processor, and the paired difference to AutoAttack
with its 95 % interval. torchattacks takes 10 steps where the authors of AutoAttack (Croce & Hein, ICML 2020) take 100;
``--steps`` sets those of all attacks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import unmask
from unmask.attacking import run_attack, verdicts
from unmask.cases import Case, find_case
from unmask.data import load
from unmask.evaluation.attack_registry import ATTACKS
from unmask.gradients.autograd import autograd
from unmask.judging import Judge
from unmask.models.allocator import keep_freed_memory
from unmask.models.model_wrappers import Passes, batch_invariant
from unmask.statistics import accuracy, difference

_BATCH = 100


@dataclass(frozen=True)
class Row:
    """What an attack leaves of each image (N,), and what it took."""

    name: str
    robust: Tensor
    passes: Passes
    seconds: float

    def text(self, network: str, other: Row | None) -> str:
        found = accuracy(self.robust.tolist())
        share = f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
        apart = ""
        if other is not None:
            gap = difference(self.robust.tolist(), other.robust.tolist())
            weaker, stronger = int((self.robust > other.robust).sum()), int((self.robust < other.robust).sum())
            apart = f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}], {weaker} / {stronger}"
        passes = f"{self.passes.forwards} | {self.passes.backwards}"
        return f"| `{network}` | {self.name} | {found.n} | {share} | {apart} | {passes} | {self.seconds:.0f} |"


class Counted(nn.Module):
    """A model that counts the images that go forward and backward through it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, Passes()

    def forward(self, x: Tensor) -> Tensor:
        return batch_invariant(self.model, passes=self.passes)(x).logits


def ours(name: str, steps: int) -> Callable[[nn.Module, Case, int], Row]:
    """An attack of unmask by name; the judge's passes count."""

    def measure(model: nn.Module, case: Case, n: int) -> Row:
        images, labels = load(case.data, n=n).batch()
        judge, started, left = Judge(model, case.threat), time.process_time(), list[Tensor]()
        attack, passes = ATTACKS[name].make(steps, 1, autograd), Passes()
        for index in torch.arange(len(images)).split(_BATCH):
            found = run_attack(attack, model, images[index], labels[index], judge=judge, index=index)
            left.append(found.verdict.robust_fraction)
            passes.forwards += found.passes.forwards
            passes.backwards += found.passes.backwards
        passes.forwards += judge.passes.forwards
        return Row(name, torch.cat(left), passes, time.process_time() - started)

    return measure


def theirs(steps: int) -> Callable[[nn.Module, Case, int], Row]:
    """AutoAttack of torchattacks, in evaluation mode: it gives a model back in the mode in which it got it."""
    import torchattacks

    def measure(model: nn.Module, case: Case, n: int) -> Row:
        images, labels = load(case.data, n=n).batch()
        judge, left, started = Judge(model, case.threat), list[Tensor](), time.process_time()
        counted = Counted(unmask.attackable(model)).eval()
        auto = torchattacks.AutoAttack(counted, norm="Linf", eps=case.threat.eps, seed=0)
        for part in auto._autoattack.attacks:
            if hasattr(part, "steps"):
                part.steps = steps
        for index in torch.arange(len(images)).split(_BATCH):
            x, y = images[index], labels[index]
            left.append(verdicts(judge, case.threat.project(auto(x, y), x), x, y, index, 0)[0].robust_fraction)
        return Row(f"AutoAttack, {steps} steps", torch.cat(left), counted.passes, time.process_time() - started)

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--attacks", nargs="+", default=["fast", "ensemble"], choices=sorted(ATTACKS))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--without-theirs", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    apart = "minus the last attack, points; images on which it is weaker / stronger"
    print(f"| network | attack | n | robust accuracy, % | {apart} | images forward | images backward | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    named = [ours(name, options.steps) for name in options.attacks]
    for case in map(find_case, options.cases):
        model = case.load(options.weights).eval().requires_grad_(False)
        attacks = named if options.without_theirs else [*named, theirs(options.steps)]
        rows = [measure(model, case, options.n) for measure in attacks]
        for row in rows:
            print(row.text(case.name, None if row is rows[-1] else rows[-1]), flush=True)


if __name__ == "__main__":
    main()
