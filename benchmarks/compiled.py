"""What ``--compile`` gains for forward and backward passes, compiled and not, in rounds; and what the first one costs.

python -m benchmarks.compiled [--batch 64] [--rounds 9] [--device cpu]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.subjects import ratio, timed
from unmask.models.allocator import keep_freed_memory
from unmask.models.compiling import Compiler
from unmask.models.model_wrappers import fold_batchnorm
from unmask.nets.classifiers import conv_net
from unmask.nets.mobilenet import MobileNetV2
from unmask.nets.residual import residual_net
from unmask.types import Model, as_output

NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "small net, MNIST": (lambda: conv_net(1, 28), (1, 28, 28)),
    "residual net, CIFAR-10": (residual_net, (3, 32, 32)),
    "MobileNetV2, 224 x 224": (MobileNetV2, (3, 224, 224)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    keep_freed_memory()
    print(
        "| network | as it is, ms | compiled, ms | compiled takes | first pass, s |\n|---|---|---|---|---|", flush=True
    )
    for name, (build, shape) in NETS.items():
        torch.manual_seed(0)
        net = build().eval().to(options.device)
        x = torch.rand(options.batch, *shape, device=options.device)
        view, said = fold_batchnorm(net), list[str]()
        fast = Compiler(said.append).of(net, None, partial(fold_batchnorm, net), random=False)
        began = time.perf_counter()
        passes(fast, x)
        first = time.perf_counter() - began
        times = timed({"view": partial(passes, view, x), "fast": partial(passes, fast, x)}, options.rounds)
        a, b = (1000 * median(times[kind]) for kind in ("view", "fast"))
        told = said[0] if said else f"{ratio(times, 'fast', 'view'):.2f}"
        print(f"| {name} | {a:.0f} | {b:.0f} | {told} | {first:.0f} |", flush=True)


def passes(view: Model, x: Tensor) -> None:
    """Forward and backward; waits for the device."""
    z = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(as_output(view(z)).logits.square().sum(), z)
    gradient.sum().item()


if __name__ == "__main__":
    main()
