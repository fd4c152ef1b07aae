"""Total variation and quilting as they are usually written, image by image; and how near each comes to the minimum.

    python benchmarks/transforms_references.py [--batch 16]

prints by how much each way ends above the minimum of total variation's objective, which a long run stands for. The
speed of these references is compared in ``transforms.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from unmask.data import load
from unmask.defenses.transforms.quilting import Quilt, build_patches
from unmask.defenses.transforms.total_variation import MinimiseTotalVariation, minimise
from unmask.randomness import make_keys, uniform, use_keys

WEIGHT = 0.03
PATCHES = 20_000


def by_skimage(image: Tensor) -> Tensor:
    """Split Bregman of one image (3, H, W), all pixels kept: compiled Gauss-Seidel sweeps, stopped as in Guo et al."""
    from skimage.restoration import denoise_tv_bregman

    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    smooth = denoise_tv_bregman(pixels, 2 / WEIGHT, max_num_iter=100, eps=1e-3, isotropic=False, channel_axis=-1)
    return torch.from_numpy(smooth).permute(2, 0, 1)


def masked_bregman(x: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Split Bregman of one image (3, H, W) where not all pixels are kept (H, W): red-black Gauss-Seidel by NumPy."""
    w = np.float32(2 / WEIGHT)
    lam = 2 * w
    height, width = kept.shape
    red = np.indices(kept.shape).sum(0) % 2 == 0
    ones = np.pad(np.ones((height, width), np.float32), 1)
    neighbours = ones[:-2, 1:-1] + ones[2:, 1:-1] + ones[1:-1, :-2] + ones[1:-1, 2:]
    total = lam * neighbours + w * kept
    u = x * kept
    slack = [np.zeros_like(x[:, 1:]), np.zeros_like(x[:, :, 1:])]  # b
    wanted = [np.zeros_like(b) for b in slack]  # d - b
    for _ in range(100):
        before = u.copy()
        for colour in (red, ~red):
            near = np.zeros_like(u)
            near[:, 1:] += u[:, :-1] + wanted[0]
            near[:, :-1] += u[:, 1:] - wanted[0]
            near[:, :, 1:] += u[:, :, :-1] + wanted[1]
            near[:, :, :-1] += u[:, :, 1:] - wanted[1]
            u = np.where(colour, (lam * near + w * kept * x) / total, u)
        for axis in (0, 1):
            v = np.diff(u, axis=axis + 1) + slack[axis]
            slack[axis] = v.clip(-1 / lam, 1 / lam)
            wanted[axis] = v - 2 * slack[axis]
        if np.sqrt(np.square(u - before).mean()) <= 1e-3:
            break
    return np.asarray(u)


def masks(x: Tensor, keep: float = 0.5) -> Tensor:
    return uniform((len(x), 1, *x.shape[2:]), like=x) < keep


def by_numpy(x: Tensor) -> Tensor:
    """Total variation with pixels dropped at random, image by image."""
    pairs = zip(x.numpy(), masks(x)[:, 0].numpy(), strict=True)
    return torch.from_numpy(np.stack([masked_bregman(image, kept) for image, kept in pairs]))


@cache
def database() -> Tensor:
    return build_patches(load("imagenet-sample", n=100).batch(36)[0], PATCHES)


@cache
def quilt() -> Quilt:
    return Quilt(database())


@torch.no_grad()
def quilted(x: Tensor) -> Tensor:
    out: Tensor = quilt()(x)
    return out


def tile_by_tile(x: Tensor) -> Tensor:
    """Quilting: neighbours by scikit-learn, then each tile of each image in turn. Sides must be whole tiles."""
    from sklearn.neighbors import NearestNeighbors

    patches = database().numpy()
    search = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(patches.reshape(len(patches), -1))
    side = (x.shape[2] - 5) // 3 + 1
    choices = (uniform((len(x), side, side), like=x) * 10).long().numpy()
    out = np.zeros_like(x.numpy())
    for image, canvas, choice in zip(x, out, choices, strict=True):
        tiles = image.unfold(1, 5, 3).unfold(2, 5, 3).permute(1, 2, 0, 3, 4).reshape(side * side, -1)
        near = search.kneighbors(tiles.numpy(), return_distance=False).reshape(side, side, 10)
        for i in range(side):
            for j in range(side):
                _put(canvas[:, 3 * i : 3 * i + 5, 3 * j : 3 * j + 5], patches[near[i, j, choice[i, j]]], i > 0, j > 0)
    return torch.from_numpy(out)


def _put(place: np.ndarray, new: np.ndarray, above: bool, left: bool) -> None:
    """A patch over what is there, to the right of the left seam and below the upper one."""
    error = ((new - place) ** 2).sum(0)
    taken = np.ones((5, 5), bool)
    if left:
        taken[range(5), 0] = _seam(error[:, :2])
    if above:
        taken[0] &= _seam(error[:2].T)
    place[:, taken] = new[:, taken]


def _seam(error: np.ndarray) -> np.ndarray:
    """Whether the cheapest path through two columns is in the first of them, row by row."""
    totals = [error[0]]
    for row in error[1:]:
        totals.append(row + totals[-1].min())
    return np.array([total[0] <= total[1] for total in totals])


def objective(u: Tensor, x: Tensor, kept: Tensor) -> Tensor:
    """(B,), what total variation minimises."""
    error = ((u - x).double().square() * kept).flatten(1).sum(1)
    return error + WEIGHT * sum(u.double().diff(dim=dim).abs().flatten(1).sum(1) for dim in (2, 3))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    x = load("imagenet-sample", n=parser.parse_args().batch).batch()[0]

    def keyed(run: Callable[[Tensor], Tensor]) -> Tensor:
        with use_keys(make_keys(0, range(len(x)), "benchmark")):
            return run(x)

    some, everything = keyed(masks), torch.ones_like(x[:, :1], dtype=torch.bool)
    ways: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
        "half of the pixels: ours": (some, MinimiseTotalVariation()),
        "half of the pixels: ours, tolerance 3e-4": (some, MinimiseTotalVariation(tolerance=3e-4)),
        "half of the pixels: NumPy": (some, by_numpy),
        "all pixels: ours": (everything, MinimiseTotalVariation(keep=1)),
        "all pixels: scikit-image": (everything, lambda x: torch.stack([by_skimage(image) for image in x])),
    }
    long = {id(kept): minimise(x, kept, WEIGHT, steps=1500, tolerance=1e-7) for kept in (some, everything)}
    print("| way | above the minimum, mean | most | root mean square from the long run, levels | largest, levels |")
    print("|---|---|---|---|---|")
    for name, (kept, run) in ways.items():
        try:
            u, best = keyed(run), long[id(kept)]
        except ImportError as error:
            print(f"| {name} | left out: {error} ||||")
            continue
        above = objective(u, x, kept) / objective(best, x, kept) - 1
        apart = 255 * (u - best)
        print(
            f"| {name} | {above.mean():.2%} | {above.max():.2%} | {apart.square().mean().sqrt():.2f} "
            f"| {apart.abs().max():.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
