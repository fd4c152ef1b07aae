"""How a case hides its gradient, in figures: for docs/cases.

    python benchmarks/masking.py thermometer-cifar10 sap-cifar10 --n 100

For each case, on clean test images and the cross entropy: the share of the input gradient's entries that are exactly 0;
the cosine between the gradients of two draws of the defense's randomness; and the share of images on which one step of
length eps along the sign of the gradient raises the loss.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from unmask.cases import find_case
from unmask.data import load
from unmask.losses import cross_entropy
from unmask.models.model_wrappers import frozen_copy
from unmask.randomness import make_keys, use_keys
from unmask.threats import Threat
from unmask.types import as_output


def gradient(model: nn.Module, x: Tensor, y: Tensor, draw: int) -> tuple[Tensor, Tensor]:
    """Losses (B,) and input gradients (B, C, H, W) for one draw of the model's randomness."""
    x = x.clone().requires_grad_()
    with use_keys(make_keys(draw, torch.arange(len(x)), "masking")):
        losses = cross_entropy(as_output(model(x)), y)
    if not losses.requires_grad:
        return losses, torch.zeros_like(x)
    return losses.detach(), torch.autograd.grad(losses.sum(), x)[0]


def figures(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> tuple[float, float, float]:
    """Share of zeros, cosine between two draws, share of images whose loss a step raises."""
    first = gradient(model, x, y, 0)[1]
    second = gradient(model, x, y, 1)[1]
    cosine = torch.cosine_similarity(first.flatten(1), second.flatten(1)).mean()
    step = threat.project(x + threat.eps * first.sign(), x)
    after = torch.stack([gradient(model, step, y, draw)[0] for draw in range(2, 5)]).mean(0)
    before = torch.stack([gradient(model, x, y, draw)[0] for draw in range(2, 5)]).mean(0)
    return float((first == 0).float().mean()), float(cosine), float((after > before + 1e-6).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--n", type=int, default=100)
    options = parser.parse_args()
    print("| case | n | zero entries, % | cosine of two draws | one step raises the loss, % |\n|---|---|---|---|---|")
    for name in options.cases:
        case = find_case(name)
        zeros, cosine, raised = figures(frozen_copy(case.load()), *load(case.data, n=options.n).batch(), case.threat)
        print(f"| {name} | {options.n} | {100 * zeros:.1f} | {cosine:.2f} | {100 * raised:.0f} |", flush=True)


if __name__ == "__main__":
    main()
