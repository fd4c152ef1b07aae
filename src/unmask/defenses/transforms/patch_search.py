"""The nearest patches of a large database, by matrix products in bounded memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.errors import UnmaskError

__all__ = ["nearest_patches"]

_GROUP = 16  # patches of which only the nearest is remembered at first
_BLOCK = 256  # groups that are compared at a time
_SPARE = 4  # groups and candidates beyond k, for those that rounding brings forward


@torch.no_grad()
def nearest_patches(tiles: Tensor, patches: Tensor, k: int, values: int = 1 << 22) -> Tensor:
    """The ``k`` patches (N, ...) nearest to each tile (T, ...) by Euclidean distance, nearest first: indices (T, k).

    The search finds, of each 16 patches, the least distance to a tile; the k nearest patches are in the k
    groups where that is least. These groups are searched, in float32 like before, for a few more than k
    candidates, whose distances are then taken in float64 without cancellation, so that the order depends
    neither on rounding nor on which tiles are searched together. Of equally distant candidates the earlier
    patches come first; where many more than k patches are all but equally near, to about 1e-6 of the squared
    distance from their mean, which of them are candidates is up to rounding.

    Args:
        tiles: (T, ...).
        patches: (N, ...) of the same shape.
        k: at most N.
        values: numbers of 4 bytes in use at a time beside one copy of the patches, in whole tiles, one at least.

    >>> nearest_patches(torch.tensor([[0.0], [0.9]]), torch.tensor([[1.0], [0.2], [0.0]]), k=2)
    tensor([[2, 1],
            [0, 1]])
    """
    if tiles.shape[1:] != patches.shape[1:]:
        raise UnmaskError(f"tiles {tuple(tiles.shape[1:])} and patches {tuple(patches.shape[1:])} must be of one shape")
    if not 1 <= k <= len(patches):
        raise UnmaskError(f"k must be from 1 to {len(patches)}, the patches there are, not {k}")
    centre = patches.flatten(1).float().mean(0)
    database = _with_norms(patches.flatten(1), centre)
    queries = F.pad(tiles.flatten(1).float() - centre, (0, 1), value=1.0)
    groups, kept = len(database) // _GROUP, k + _SPARE
    searched = min(kept, groups)
    rows = max(1, values // max(groups, _GROUP * _BLOCK, searched * _GROUP * database.shape[1]))
    blocks = database.split(_GROUP * _BLOCK)
    pool = database.new_empty(min(rows, len(tiles)) * searched * _GROUP, database.shape[1])
    found = []
    for part, tile in zip(queries.split(rows), tiles.flatten(1).split(rows), strict=True):
        least = part.new_empty(len(part), groups)
        for block, into in zip(blocks, least.split(_BLOCK, 1), strict=True):
            torch.amin((part @ block.T).unflatten(1, (_GROUP, -1)), 1, out=into)
        best = least.topk(searched, 1, largest=False).indices
        members = _members(best, len(database)).flatten(1)  # (rows, searched * 16)
        rival = torch.index_select(database, 0, members.flatten(), out=pool[: members.numel()])
        scores = torch.bmm(rival.unflatten(0, members.shape), part.unsqueeze(2)).squeeze(2)
        near = members.gather(1, scores.topk(min(kept, len(patches)), 1, largest=False).indices).sort(1).values
        apart = (patches.flatten(1)[near].double() - tile.unsqueeze(1).double()).square().sum(2)
        found.append(near.gather(1, apart.sort(stable=True).indices[:, :k]))
    return torch.cat(found) if found else torch.empty(0, k, dtype=torch.long, device=tiles.device)


def _with_norms(patches: Tensor, centre: Tensor) -> Tensor:
    """Rows (-p, |p|^2 / 2), p = patches (N, D) less ``centre``, and up to whole groups rows that are far from all.

    The product of such a row with (t, 1) is half of the squared distance of p and t, less |t|^2 / 2.
    """
    n, numbers = patches.shape
    rows = patches.new_zeros(n + -n % _GROUP, numbers + 1, dtype=torch.float32)
    torch.sub(centre, patches, out=rows[:n, :-1])
    rows[:, -1] = torch.linalg.vector_norm(rows, dim=1).square() / 2
    rows[n:, -1] = 1e30
    return rows


def _members(groups: Tensor, size: int) -> Tensor:
    """The 16 patches (..., 16) of each group (...): in a block, those that are equally far from one another."""
    block = groups // _BLOCK
    wide = (size // _GROUP - block * _BLOCK).clamp_max(_BLOCK)  # groups of this block
    first = block * (_GROUP * _BLOCK) + groups % _BLOCK
    return first.unsqueeze(-1) + torch.arange(_GROUP, device=groups.device) * wide.unsqueeze(-1)
