"""PixelDefend's purification three ways, outputs compared: passes and seconds.

    python benchmarks/pixeldefend.py [--batch 16] [--batches 2] [--weights runs/w] [--literal 32]

"literal" runs the whole network for each pixel, 1024 passes, and is timed on ``--literal`` of them; "cached" goes from
pixel to pixel and keeps the activations of all earlier ones, so that all of its work adds up to one pass; "waves" is
the library's: the same work in fewer steps.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.cases import find_case
from unmask.data import load
from unmask.defenses.pixeldefend import Purify, reach, solve
from unmask.nets.logistic_mixture import greedy
from unmask.nets.pixel_cnn import PixelCNN, Waves, marked


def cached(net: PixelCNN, low: Tensor, high: Tensor) -> Tensor:
    """Greedy levels (B, C, H, W) one pixel after another, the activations of all earlier pixels kept."""
    batch, channels, height, side = low.shape
    low, high = (bound.permute(2, 3, 0, 1).contiguous() for bound in (low, high))
    image, blank = torch.zeros_like(low), net.head.weight.new_zeros
    layers = [(layer.taps, *layer.matrix()) for layer in (net.enter, *net.layers)]
    head, bias = net.head.weight.flatten(1).T.contiguous(), net.head.bias
    sizes = (channels + 1, *[net.enter.out_channels] * len(net.layers))
    seen = [blank(height + 2, side + 4, batch, size) for size in sizes]  # of each layer's input, padded

    def apply(i: int, r: int, j: int) -> Tensor:
        taps, weight, bias = layers[i]
        return torch.addmm(bias, torch.cat([seen[i][r + 2 - up, j + 2 + right] for up, right in taps], -1), weight)

    for r, j in itertools.product(range(height), range(side)):
        state = apply(0, r, j)
        for i in range(1, len(layers)):
            seen[i][r + 2, j + 2] = F.elu(state)
            state = state + F.glu(apply(i, r, j), -1)
        image[r, j] = greedy(torch.addmm(bias, F.elu(state), head), low[r, j], high[r, j])
        seen[0][r + 2, j + 2] = marked(image[r, j].to(seen[0].dtype), -1)
    return image.permute(2, 3, 0, 1)


def literal(net: PixelCNN, low: Tensor, high: Tensor, most: int) -> Tensor:
    """The first ``most`` pixels by the definition: a pass of the whole network for each."""
    levels = torch.zeros_like(low)
    for r, j in list(itertools.product(range(low.shape[2]), range(low.shape[3])))[:most]:
        levels[:, :, r, j] = greedy(net(levels)[:, r, j], low[:, :, r, j], high[:, :, r, j])
    return levels


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    answer = run()
    return answer, time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--literal", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    purify = find_case("pixeldefend-cifar10").load(options.weights).get_submodule("purify").to(options.device)
    assert isinstance(purify, Purify)
    net = purify.density
    images = load("cifar10", n=options.batch * options.batches).batch()[0].to(options.device)
    print("| images | literal, s | cached, s | waves, s | steps | cached / waves | same output |")
    print("|---|---|---|---|---|---|---|")
    for number, x in enumerate(images.split(options.batch)):
        low, high = reach(x, purify.eps)
        solve(net, low, high)  # warm
        image, seconds = timed(lambda: solve(net, low, high))  # noqa: B023
        one_by_one, slow = timed(lambda: cached(net, low, high))  # noqa: B023
        first, slowest = timed(lambda: literal(net, low, high, options.literal))  # noqa: B023
        pixels = low.shape[2] * low.shape[3]
        same = torch.equal(image, one_by_one)
        same &= torch.equal(image.flatten(2)[..., : options.literal], first.flatten(2)[..., : options.literal])
        steps = len(Waves(net, 1, *low.shape[2:]))
        last = number * options.batch + len(x) - 1
        print(
            f"| {last - len(x) + 1} to {last} | {slowest * pixels / options.literal:.1f} "
            f"| {slow:.2f} | {seconds:.3f} | {steps} of {pixels} | {slow / seconds:.1f} | {same} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
