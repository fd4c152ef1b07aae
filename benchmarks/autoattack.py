"""The ensemble of a control beside torchattacks' AutoAttack, on the same images, through ``unmask.attackable``.

    python benchmarks/autoattack.py madry-mnist --n 1000 --steps 100 [--weights runs/w] [--theirs]

Needs ``torchattacks``. Prints robust accuracy, as unmask's judge finds it, and images forward and backward.
torchattacks takes 10 steps where the authors of AutoAttack (Croce & Hein, ICML 2020) take 100; ``--steps`` sets them.
``--theirs`` leaves out the ensemble, whose figures `unmask reproduce` has as well.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torchattacks
from torch import Tensor, nn

import unmask
from unmask.attacking import run_attack, verdicts
from unmask.cases import find_case
from unmask.data import load
from unmask.judging import Judge
from unmask.models.allocator import keep_freed_memory
from unmask.models.model_wrappers import Passes, batch_invariant
from unmask.statistics import Accuracy, accuracy


class Counted(nn.Module):
    """A model that counts the images that go forward and backward through it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, Passes()

    def forward(self, x: Tensor) -> Tensor:
        return batch_invariant(self.model, passes=self.passes)(x).logits


def row(name: str, robust: Tensor, passes: Passes, seconds: float) -> None:
    found: Accuracy = accuracy(robust.tolist())
    share = f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    print(f"| {name} | {found.n} | {share} | {passes.forwards} | {passes.backwards} | {seconds:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--theirs", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    case = find_case(options.case)
    model = case.load(options.weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = load(case.data, n=options.n).batch()
    judge = Judge(model, case.threat)
    attack = case.attacks["ensemble"].make(model)
    print("| attack | n | robust accuracy, % | images forward | images backward | seconds |\n|---|---|---|---|---|---|")

    ours, passes, started = [], Passes(), time.monotonic()
    for index in () if options.theirs else torch.arange(options.n).split(options.batch):
        found = run_attack(attack, model, images[index], labels[index], judge=judge, index=index)
        ours.append(found.verdict.robust_fraction)
        passes.forwards += found.passes.forwards
        passes.backwards += found.passes.backwards
    if not options.theirs:
        passes.forwards += judge.passes.forwards
        row("unmask: ensemble, its judge included", torch.cat(ours), passes, time.monotonic() - started)

    # in evaluation mode: torchattacks gives a model back in the mode in which it got it, and its batch norm with it
    theirs, counted, started = [], Counted(unmask.attackable(model)).eval(), time.monotonic()
    auto = torchattacks.AutoAttack(counted, norm="Linf", eps=case.threat.eps, seed=0)
    for part in auto._autoattack.attacks:
        if hasattr(part, "steps"):
            part.steps = options.steps
    for index in torch.arange(options.n).split(options.batch):
        x, y = images[index], labels[index]
        found_x = case.threat.project(auto(x, y), x)
        theirs.append(verdicts(judge, found_x, x, y, index, 0)[0].robust_fraction)
    seconds = time.monotonic() - started
    row(f"torchattacks: AutoAttack, {options.steps} steps", torch.cat(theirs), counted.passes, seconds)
    if not options.theirs:
        a, b = torch.cat(ours), torch.cat(theirs)
        print(f"broken by unmask alone: {int((a < b).sum())}, by torchattacks alone: {int((b < a).sum())}")


if __name__ == "__main__":
    main()
