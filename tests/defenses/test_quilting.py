from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from unmask.defenses.transforms import quilting
from unmask.defenses.transforms.patch_search import nearest_patches
from unmask.defenses.transforms.quilting import Quilt, build_patches, seam
from unmask.randomness import make_keys, use_keys


def levels(*shape: int, seed: int = 0, most: int = 16) -> Tensor:
    """Multiples of 1 / 16, whose squares add up without rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(most + 1, shape, generator=generator) / 16


def cheapest(error: np.ndarray) -> list[int]:
    """Of all paths, the cheapest; of equal ones, that with the lower last column, then the one before ..."""
    length, width = error.shape
    if not width:
        return [0] * length

    def cost(path: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        return sum(float(error[r, c]) for r, c in enumerate(path)), path[::-1]

    paths = itertools.product(range(width), repeat=length)
    best = min((p for p in paths if all(abs(a - b) <= 1 for a, b in itertools.pairwise(p))), key=cost)
    return list(best)


def tile_by_tile(x: np.ndarray, patches: np.ndarray, overlap: int, k: int, u: np.ndarray) -> np.ndarray:
    """Quilting of one image (C, H, W) by the definition, with numbers u (rows, columns) that choose."""
    size = patches.shape[-1]
    step = size - overlap
    height, width = x.shape[1:]
    rows, columns = (max(0, -(-(side - size) // step)) + 1 for side in (height, width))
    whole = np.pad(
        x, ((0, 0), (0, (rows - 1) * step + size - height), (0, (columns - 1) * step + size - width)), "edge"
    )
    out = np.zeros_like(whole)
    for i in range(rows):
        for j in range(columns):
            place = np.s_[:, i * step : i * step + size, j * step : j * step + size]
            distance = ((patches - whole[place]) ** 2).sum((1, 2, 3))
            new = patches[np.argsort(distance, kind="stable")[:k][int(u[i, j] * k)]]
            error = ((new - out[place]) ** 2).sum(0)
            taken = np.ones((size, size), bool)
            if j > 0:
                for r, c in enumerate(cheapest(error[:, :overlap])):
                    taken[r, :c] = False
            if i > 0:
                for c, r in enumerate(cheapest(error[:overlap].T)):
                    taken[:r, c] = False
            out[place] = np.where(taken, new, out[place])
    return out[:, :height, :width]


@pytest.mark.parametrize(
    ("size", "overlap", "k", "height", "width"),
    [(5, 2, 4, 14, 17), (5, 2, 1, 13, 18), (5, 1, 3, 11, 12), (6, 3, 3, 12, 15), (4, 0, 2, 9, 8), (5, 2, 2, 4, 9)],
)
def test_equals_quilting_tile_by_tile(
    size: int, overlap: int, k: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, patches = levels(3, 2, height, width), levels(70, 2, size, size, seed=1)
    numbers = []

    def recorded(shape: tuple[int, ...], like: Tensor) -> Tensor:
        numbers.append(torch.rand(*shape, generator=torch.Generator().manual_seed(2)))
        return numbers[-1]

    monkeypatch.setattr(quilting, "uniform", recorded)
    found = Quilt(patches, overlap, k)(x)
    (u,) = numbers
    for image, one, draws in zip(found, x, u, strict=True):
        assert np.array_equal(image.numpy(), tile_by_tile(one.numpy(), patches.numpy(), overlap, k, draws.numpy()))


def test_seams_are_the_cheapest_of_all_paths() -> None:
    for width, most in ((1, 8), (2, 2), (2, 16), (3, 16), (4, 3)):
        errors = levels(30, 5, width, most=most)
        found = seam(errors)
        for error, path in zip(errors, found, strict=True):
            assert path.tolist() == cheapest(error.numpy())


def test_a_cut_may_begin_in_the_first_row_and_column() -> None:
    """Old and new agree nowhere but in the first column of the overlap: the cut lies there, and all is new."""
    error = torch.ones(5, 2)
    error[:, 0] = 0
    assert seam(error).tolist() == [0] * 5


@pytest.mark.parametrize("values", [1, 3000, 1 << 23])
def test_nearest_patches_are_those_of_a_full_search(values: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for n, k in ((9, 9), (40, 7), (5000, 12), (8192, 1)):
        tiles, patches = torch.rand(13, 3, 2, 2, generator=generator), torch.rand(n, 3, 2, 2, generator=generator)
        distance = torch.cdist(tiles.flatten(1).double(), patches.flatten(1).double())
        assert torch.equal(nearest_patches(tiles, patches, k, values), distance.sort(1).indices[:, :k])


def test_tiny_distances_are_told_apart() -> None:
    """Where float32 products cancel: patches that differ from the tile by less than their rounding."""
    tile = torch.full((1, 75), 0.9)
    patches = tile.repeat(40, 1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    patches[order, 0] += torch.arange(40) * 2.0**-20
    assert nearest_patches(tile, patches, 40)[0].tolist() == order.tolist()
    assert nearest_patches(tile, tile.repeat(9, 1), 5)[0].tolist() == [0, 1, 2, 3, 4]


def test_an_image_made_of_the_patches_stays_as_it_is() -> None:
    x = torch.rand(2, 3, 14, 20)
    own = x.unfold(2, 5, 3).unfold(3, 5, 3).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 5, 5)
    database = torch.cat((torch.rand(500, 3, 5, 5), own))
    assert torch.equal(Quilt(database, nearest=1)(x), x)
    assert not torch.equal(Quilt(database, nearest=2)(x), x)


def test_an_image_does_not_depend_on_the_batch() -> None:
    x, patches = torch.rand(5, 3, 14, 11), torch.rand(300, 3, 5, 5)
    rows = torch.tensor([4, 1])
    with use_keys(make_keys(0, range(5), "test")):
        whole = Quilt(patches)(x)
    with use_keys(make_keys(0, rows, "test")):
        assert torch.equal(Quilt(patches, values=1)(x[rows]), whole[rows])
    assert not torch.equal(Quilt(patches)(x), whole)


def test_what_was_found_for_an_image_is_remembered_with_its_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []

    def search(tiles: Tensor, *more: Any) -> Tensor:
        searched.append(len(tiles) // 12)
        return nearest_patches(tiles, *more)

    monkeypatch.setattr(quilting, "nearest_patches", search)
    x, patches, others = torch.rand(4, 3, 14, 11), torch.rand(300, 3, 5, 5), torch.rand(300, 3, 5, 5)
    quilt, keys = Quilt(patches), make_keys(0, range(4), "test")
    for batch, new in ((x[:2].repeat(2, 1, 1, 1), 2), (x, 2), (x.flip(0), 0), (x[:2], 0), (x, 2)):
        with use_keys(keys):
            found = quilt(batch)
        with use_keys(keys):
            assert torch.equal(found, Quilt(patches)(batch))
        assert sum(searched) - len(batch.unique(dim=0)) == new
        searched.clear()
    quilt.load_state_dict({"patches": others})
    with use_keys(keys):
        found = quilt(x)
    with use_keys(keys):
        assert torch.equal(found, Quilt(others)(x))


def test_each_of_the_nearest_is_chosen_as_often() -> None:
    patches = (torch.arange(6.0) / 10).view(-1, 1, 1, 1).expand(-1, 1, 5, 5).contiguous()
    chosen = Quilt(patches, nearest=4)(torch.zeros(3000, 1, 5, 5))[:, 0, 2, 2]
    counts = (10 * chosen).round().long().bincount(minlength=6)
    assert counts[4:].sum() == 0
    assert chisquare(counts[:4].numpy()).pvalue > 1e-3


def test_patches_are_cut_from_everywhere_and_nested() -> None:
    images = torch.arange(2 * 3 * 5 * 6.0).view(2, 3, 5, 6)
    patches = build_patches(images, 4000, 4, seed=3)
    places = images[:, 0, :2, :3].flatten()  # the upper left pixel says image and place
    which = patches[:, 0, 0, 0]
    assert set(which.tolist()) == set(places.tolist())
    assert chisquare([int((which == place).sum()) for place in places]).pvalue > 1e-3
    image, row, column = int(which[7]) // 90, int(which[7]) % 90 // 6, int(which[7]) % 6
    assert torch.equal(patches[7], images[image, :, row : row + 4, column : column + 4])
    assert torch.equal(build_patches(images, 100, 4, seed=3), patches[:100])
    assert not torch.equal(build_patches(images, 100, 4, seed=4), patches[:100])


def test_dtype_is_kept() -> None:
    quilt = Quilt(torch.rand(20, 1, 5, 5))
    for dtype in (torch.float16, torch.float64):
        x = torch.rand(2, 1, 8, 8, dtype=dtype, requires_grad=True)
        assert quilt(x).dtype == dtype
        assert not quilt(x).requires_grad


def test_wrong_arguments_are_refused() -> None:
    patches = torch.rand(4, 3, 5, 5)
    with pytest.raises(ValueError, match="square"):
        Quilt(patches[..., :4])
    with pytest.raises(ValueError, match="overlap must be from 0"):
        Quilt(patches, overlap=3, nearest=1)
    with pytest.raises(ValueError, match="nearest must be from 1 to 4"):
        Quilt(patches)
    with pytest.raises(ValueError, match="values"):
        Quilt(patches, nearest=1, values=0)
    with pytest.raises(ValueError, match="3 channels cannot replace those of images of 1"):
        Quilt(patches, nearest=1)(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="cannot be cut"):
        build_patches(torch.rand(1, 1, 4, 9), 10, 5)
    with pytest.raises(ValueError, match="one shape"):
        nearest_patches(patches, patches[:, :2], 1)
    with pytest.raises(ValueError, match="k must be from 1 to 4"):
        nearest_patches(patches, patches, 5)
