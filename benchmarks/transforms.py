"""Input transformations, batched, against the usual code image by image: images a second and largest difference.

    python benchmarks/transforms.py [NAME ...] [--batch 16] [--rounds 7] [--threads 1] [--clock cpu]

Images are the first of ``imagenet-sample`` at 224x224, whole levels over 255. Each round runs both sides, after a round
that does not count; the ratio is the median over the rounds of the ratio within a round. ``--clock cpu`` counts the
seconds of the processor instead of those of the clock, which is right beside other jobs and with one thread only.
References written for one image run on ``--threads`` threads at once, as torch does. A row whose peer is not installed
is left out, and named. A difference is in levels of 1 / 255; a random transformation has the same draws on both sides.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
import transforms_references as references
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import map_coordinates
from torch import Tensor

from unmask.data import DataError, load
from unmask.defenses.distortion import RandomDistortion
from unmask.defenses.transforms.feature_distillation import FeatureDistillation
from unmask.defenses.transforms.jpeg import JPEG
from unmask.defenses.transforms.total_variation import MinimiseTotalVariation
from unmask.models.allocator import keep_freed_memory
from unmask.randomness import make_keys, uniform, use_keys

Transform = Callable[[Tensor], Tensor]  # (B, 3, H, W) in [0, 1] -> the same shape


class Row(NamedTuple):
    name: str
    ours: Transform
    reference: Transform
    tolerance: float  # levels of 1 / 255 that a value may differ by


def one_by_one(transform: Transform) -> Transform:
    """A transform of one image (3, H, W) applied to each image of a batch, on as many threads as torch has."""

    def batched(x: Tensor) -> Tensor:
        if (threads := torch.get_num_threads()) == 1:
            return torch.stack([transform(image) for image in x])
        with ThreadPoolExecutor(threads) as pool:
            return torch.stack(list(pool.map(transform, x)))

    return batched


def pillow(x: Tensor) -> Tensor:
    """JPEG by libjpeg-turbo. All images become bytes, and floats again, at once; only the rest goes one by one."""

    def there_and_back(pixels: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
        return np.asarray(Image.open(buffer))

    pixels = (x * 255 + 1e-3).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    if (threads := torch.get_num_threads()) == 1:
        images = [there_and_back(image) for image in pixels]
    else:
        with ThreadPoolExecutor(threads) as pool:
            images = list(pool.map(there_and_back, pixels))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().float() / 255


def block_by_block(image: Tensor) -> Tensor:
    """Feature distillation of one image, block by block."""
    table = np.full((8, 8), 30.0)
    table[:4, :4] = 25
    levels = 255 * image.double().numpy()
    for channel in levels:
        for top in range(0, channel.shape[0], 8):
            for left in range(0, channel.shape[1], 8):
                block = channel[top : top + 8, left : left + 8]
                block[:] = idctn((dctn(block, norm="ortho") / table).round() * table, norm="ortho")
    return torch.from_numpy(levels / 255).clip(0, 1).float()


def remapped(resample: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], nearest: bool) -> Transform:
    """Distortion over a grid, image by image; ``resample`` takes one image (3, H, W) at rows (H,) and columns (W,)."""

    def places(widths: np.ndarray, size: int) -> np.ndarray:
        edges = np.concatenate([[0], widths.cumsum()]) * size / len(widths)
        place = np.interp(np.arange(size), np.arange(len(edges)) * size / len(widths), edges).clip(0, size - 1)
        return place.round() if nearest else place

    def batched(x: Tensor) -> Tensor:
        widths = (0.75 + 0.5 * uniform((len(x), 2, 10), like=x)).double().numpy()
        places_of = [(places(rows, x.shape[2]), places(columns, x.shape[3])) for rows, columns in widths]
        return torch.from_numpy(np.stack([resample(a, *at) for a, at in zip(x.numpy(), places_of, strict=True)]))

    return batched


def by_scipy(order: int) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    def resample(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        grid = np.meshgrid(rows, columns, indexing="ij")
        return np.stack([map_coordinates(channel, grid, order=order, mode="nearest") for channel in image])

    return resample


def by_opencv(nearest: bool) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    def resample(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        import cv2

        x, y = (grid.astype(np.float32) for grid in np.meshgrid(columns, rows))
        how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        out = cv2.remap(np.ascontiguousarray(image.transpose(1, 2, 0)), x, y, how, borderMode=cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(out.transpose(2, 0, 1))

    return resample


def keyed(transform: Transform) -> Transform:
    """With the draws of seed 0, which are the same for ours and for the reference."""

    def drawn(x: Tensor) -> Tensor:
        with use_keys(make_keys(0, range(len(x)), "benchmark")):
            return transform(x)

    return drawn


ROWS: list[Row] = [
    Row("JPEG (Pillow)", JPEG(75), pillow, 8),
    Row("feature distillation (SciPy)", FeatureDistillation(), one_by_one(block_by_block), 8),  # at exact halves
    Row("RDG, nearest (SciPy)", keyed(RandomDistortion()), keyed(remapped(by_scipy(0), True)), 1e-3),
    Row("RDG, nearest (OpenCV)", keyed(RandomDistortion()), keyed(remapped(by_opencv(True), True)), 1e-3),
    Row("RDG, linear (SciPy)", keyed(RandomDistortion(nearest=False)), keyed(remapped(by_scipy(1), False)), 0.05),
    Row("RDG, linear (OpenCV)", keyed(RandomDistortion(nearest=False)), keyed(remapped(by_opencv(False), False)), 4),
    # differs by much at few pixels: TV where a side stopped early (transforms_references.py compares with the minimum),
    # quilting where patches are equally near
    Row("TV, all pixels (scikit-image)", MinimiseTotalVariation(keep=1), one_by_one(references.by_skimage), 100),
    Row("TV (NumPy)", keyed(MinimiseTotalVariation()), keyed(references.by_numpy), 200),
    Row("quilting (scikit-learn)", keyed(references.quilted), keyed(references.tile_by_tile), 64),
]


def seconds(run: Callable[[], Tensor], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def compare(row: Row, x: Tensor, rounds: int, clock: Callable[[], float]) -> str:
    """A line of the table."""
    difference = 255 * (row.ours(x) - row.reference(x)).abs()
    times = [(seconds(partial(row.ours, x), clock), seconds(partial(row.reference, x), clock)) for _ in range(rounds)]
    ours, reference = (len(x) / median(side) for side in zip(*times, strict=True))
    ratio = median(theirs / mine for mine, theirs in times)
    most, unequal = difference.max().item(), (difference > 1e-3).float().mean().item()
    verdict = "" if most <= row.tolerance else f" (more than {row.tolerance:g})"
    return f"| {row.name} | {ours:.1f} | {reference:.1f} | {ratio:.2f} | {most:.3g}{verdict} | {unequal:.2%} |"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="rows to run; all by default")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    try:
        x = load("imagenet-sample", n=options.batch).batch()[0]
    except DataError as error:
        raise SystemExit(f"{error}: no images, no figures") from None
    print(f"{len(x)} images of {x.shape[2]}x{x.shape[3]}, threads: {options.threads}, clock: {options.clock}\n")
    print("| transformation | ours, images/s | reference, images/s | ratio | largest difference | values that differ |")
    print("|---|---|---|---|---|---|")
    for row in ROWS:
        if options.names and row.name not in options.names:
            continue
        try:
            print(compare(row, x, options.rounds, clock), flush=True)
        except ImportError as error:
            print(f"| {row.name} | left out: {error} |||||", flush=True)


if __name__ == "__main__":
    main()
