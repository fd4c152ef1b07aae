"""The audit on models of known truth: what it finds, and the accuracy that it leaves beside that of the bare network.

    python -m benchmarks.audit_zoo [--net plain-mnist] [--n 100] [--budget quick] [--autoattack] [NAME ...]

A model is *right* where its findings have the kinds and places that the zoo knows of. The bare network's accuracy, by
the same audit, is the truth where a defense protects from nothing. ``--autoattack`` runs torchattacks' AutoAttack,
"standard", or "rand" for random models, on the same images, and needs ``torchattacks``.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

import unmask
from benchmarks.zoo import ZOO
from unmask.cases import find_case
from unmask.data import Dataset, load
from unmask.evaluation.models.model_checks import is_random


def autoattack(model: torch.nn.Module, case: Any, data: Dataset, n: int, random: bool) -> tuple[str, str]:
    """The accuracy that it leaves, in percent, and its images forward and backward, or why it has none."""
    import torchattacks

    x, y = data.batch(0, n)
    if not isinstance(model(x[:1]), torch.Tensor):
        return "a detector", ""
    passes = [0]

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        passes[0] += len(inputs[0]) * (2 if inputs[0].requires_grad else 1)

    attack = torchattacks.AutoAttack(model, "Linf", case.threat.eps, "rand" if random else "standard", seed=0)
    with model.register_forward_pre_hook(count):
        try:
            x_adv = attack(x, y)
        except RuntimeError as error:
            print(f"AutoAttack: {error}", file=sys.stderr)
            return "no gradient", str(passes[0])
    with torch.no_grad():
        return f"{100 * float((model(x_adv).argmax(1) == y).float().mean()):.1f}", str(passes[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--net", default="plain-mnist")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--autoattack", action="store_true")
    options = parser.parse_args()
    case = find_case(options.net)
    net, data = case.load(), load(case.data, n=options.n)
    print("| model | truth | found | right | clean | plain | adaptive | passes | AutoAttack | its passes | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    right = 0
    names = options.names or list(ZOO)
    for name in names:
        model = ZOO[name].build(net).eval()
        random = is_random(model, data.batch(0, 8)[0])
        try:
            report = unmask.audit(model, data, case.threat, n=options.n, budget=options.budget)
        except ValueError as error:  # what suits digits may be too much for photographs
            print(f"{name}: {error}", file=sys.stderr)
            continue
        kinds = {finding.kind for finding in report.findings}
        places = {finding.module for finding in report.findings}
        good = (
            kinds == ZOO[name].kinds
            and places == ZOO[name].places
            and (report.masking in ("masked", "partly masked")) == bool(kinds)
        )
        right += good
        left = (report.accuracy.clean, report.accuracy.plain, report.accuracy.adaptive)
        figures = ["" if accuracy is None else f"{100 * accuracy.value:.1f}" for accuracy in left]
        passes = sum(attack.forwards + attack.backwards for attack in report.attacks)
        theirs = autoattack(model, case, data, options.n, random) if options.autoattack else ("", "")
        cells = [
            name,
            " ".join(sorted(ZOO[name].kinds)),
            " ".join(sorted(kinds)),
            "yes" if good else f"no: {sorted(places)}",
            *figures,
            str(passes),
            *theirs,
            f"{report.seconds:.0f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\n{right} of {len(names)} right", file=sys.stderr)


if __name__ == "__main__":
    main()
