"""Image quilting: the image is assembled from patches of other images."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.defenses.transforms.patch_search import nearest_patches
from unmask.errors import UnmaskError
from unmask.progress import track
from unmask.randomness import make_keys, uniform, use_keys

__all__ = ["Quilt", "build_patches", "seam"]


class Quilt(nn.Module):
    """Replace each tile by a similar patch of a database (Guo et al., ICLR 2018): (B, C, H, W) -> (B, C, H, W).

    Tiles overlap by ``overlap`` pixels. For each, one of the ``nearest`` patches by Euclidean distance to the
    image's own tile is taken, by a draw of the image's own, and put over what lies there already; new and old
    meet along the cut where they differ least (Efros & Freeman, SIGGRAPH 2001), left of each tile and above
    it, in the order of reading. Images are continued at the right and the bottom, by their last pixels, up
    to whole tiles. No gradient: approximate the module as a whole, as by ``bpda("transform")``.

    Args:
        patches: the database (N, C, size, size), as of :func:`build_patches`; 10^6 of size 5 in the paper.
        overlap: of tiles, in pixels; at most half of the size.
        nearest: K, how many patches are chosen from; 1 is no choice.
        values: numbers of 4 bytes at a time in the search, which bound its memory beside a copy of the patches.

    A diagonal of tiles that rises by one row in two columns is put down at once, in all images of the batch,
    as none of its tiles touches another: the result is that of tile after tile. What the search found for the
    images of the last batch is kept, as the draws of a verdict or of EOT ask for the same images again.

    >>> x = torch.rand(2, 3, 8, 8)
    >>> Quilt(F.unfold(x, 5).mT.reshape(-1, 3, 5, 5), nearest=1)(x).equal(x)  # of its own tiles
    True
    """

    patches: Tensor

    def __init__(self, patches: Tensor, overlap: int = 2, nearest: int = 10, values: int = 1 << 22) -> None:
        super().__init__()
        if patches.ndim != 4 or patches.shape[2] != patches.shape[3]:
            raise UnmaskError(f"patches must be square, (N, C, size, size), not {tuple(patches.shape)}")
        if not 0 <= 2 * overlap <= patches.shape[3]:
            raise UnmaskError(f"an overlap must be from 0 to half of the size {patches.shape[3]}, not {overlap}")
        if not 1 <= nearest <= len(patches):
            raise UnmaskError(f"the nearest must be from 1 to {len(patches)}, the patches there are, not {nearest}")
        if values < 1:
            raise UnmaskError(f"values at a time must be at least 1, not {values}")
        self.register_buffer("patches", patches)
        self.overlap, self.nearest, self.values = overlap, nearest, values
        self._known: dict[bytes, Tensor] = {}
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        channels, size = self.patches.shape[1:3]
        if x.shape[1] != channels:
            raise UnmaskError(f"patches of {channels} channels cannot replace those of images of {x.shape[1]}")
        height, width = x.shape[2:]
        step = size - self.overlap
        missing = [max(size - side, (size - side) % step) for side in (height, width)]
        whole = F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
        tiles = whole.unfold(2, size, step).unfold(3, size, step).permute(0, 2, 3, 1, 4, 5)  # (B, I, J, C, s, s)
        u = uniform(tiles.shape[:3], like=x[:1].float())
        chosen = self._near(tiles).to(x.device).gather(3, (u * self.nearest).long().unsqueeze(3)).squeeze(3)
        return self._stitch(chosen, torch.empty_like(whole))[:, :, :height, :width]

    def _near(self, tiles: Tensor) -> Tensor:
        """The nearest patches of tiles (B, I, J, C, s, s), on the CPU: (B, I, J, K)."""
        keys = [hashlib.sha256(image.flatten().view(torch.uint8).cpu().numpy()).digest() for image in tiles]
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            wanted = tiles[list(new.values())]
            found = nearest_patches(wanted.flatten(0, 2), self.patches, self.nearest, self.values)
            self._known.update(zip(new, found.view(*wanted.shape[:3], -1).cpu(), strict=True))
        self._known = {key: self._known[key] for key in keys}
        return torch.stack(list(map(self._known.__getitem__, keys)))

    def _stitch(self, chosen: Tensor, canvas: Tensor) -> Tensor:
        """Fill the canvas (B, C, H, W) with the chosen patches (B, I, J)."""
        rows, columns = chosen.shape[1:]
        size, step = self.patches.shape[3], self.patches.shape[3] - self.overlap
        within = torch.arange(size, device=canvas.device)
        for diagonal in track(range(columns + 2 * (rows - 1)), "quilting"):
            i = torch.arange(max(0, (diagonal - columns + 2) // 2), min(rows - 1, diagonal // 2) + 1)
            i = i.to(canvas.device)
            j = diagonal - 2 * i
            places = (step * i[:, None] + within)[:, :, None], (step * j[:, None] + within)[:, None, :]
            new = self.patches[chosen[:, i, j]].to(canvas.dtype).transpose(1, 2)  # (B, C, tiles, size, size)
            if self.overlap:
                old = canvas[:, :, *places]
                taken = _taken((new - old).square().sum(1), self.overlap, i[:, None, None] == 0, j[:, None, None] == 0)
                new = torch.where(taken.unsqueeze(1), new, old)
            canvas[:, :, *places] = new
        return canvas


def _forget(quilt: Quilt, _: object) -> None:
    """Other patches were loaded."""
    quilt._known = {}


def _taken(error: Tensor, overlap: int, top: Tensor, left: Tensor) -> Tensor:
    """Which pixels (B, tiles, s, s) are new, by the squared error; those of ``top`` and ``left`` have no cut there."""
    place = torch.arange(overlap, device=error.device)
    taken = torch.ones_like(error, dtype=torch.bool)
    taken[..., :overlap] &= left | (place >= seam(error[..., :overlap]).unsqueeze(-1))
    taken.mT[..., :overlap] &= top | (place >= seam(error.mT[..., :overlap]).unsqueeze(-1))
    return taken


def seam(error: Tensor) -> Tensor:
    """The path from the first row to the last with the least sum of errors (..., L, W): its column (..., L) per row.

    From row to row it moves by one column at most. Of equal paths, the last row decides for the left one,
    then the row before it, and so on. New pixels begin at the path.

    >>> seam(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    tensor([1, 1, 0])
    """
    place = torch.arange(error.shape[-1], device=error.device)
    far = (place[:, None] - place).abs() > 1
    totals = [error[..., 0, :]]
    for row in error.unbind(-2)[1:]:
        totals.append(row + totals[-1].unsqueeze(-2).masked_fill(far, torch.inf).amin(-1))
    path = [totals[-1].argmin(-1)]
    for total in reversed(totals[:-1]):
        path.append(total.masked_fill(far[path[-1]], torch.inf).argmin(-1))
    return torch.stack(path[::-1], -1)


def build_patches(images: Tensor, count: int, size: int = 5, seed: int = 0) -> Tensor:
    """``count`` patches (count, C, size, size) of images (N, C, H, W), uniform over images and places.

    Fewer patches of the same seed are the first of more.

    >>> build_patches(torch.arange(9.0).view(1, 1, 3, 3), count=2, size=3).flatten(1).tolist()[1][:3]
    [0.0, 1.0, 2.0]
    """
    if count < 1 or not 1 <= size <= min(images.shape[2:]):
        raise UnmaskError(f"{count} patches of {size}x{size} cannot be cut from images {tuple(images.shape)}")
    with use_keys(make_keys(seed, range(count), "patches")):
        u = uniform((count, 3), like=images[:1].double())
    bounds = (len(images), images.shape[2] - size + 1, images.shape[3] - size + 1)
    image, top, left = ((u[:, k] * bound).long()[:, None, None] for k, bound in enumerate(bounds))
    within = torch.arange(size, device=images.device)
    patches = images.permute(0, 2, 3, 1)[image, top + within[:, None], left + within]
    return patches.permute(0, 3, 1, 2).contiguous()
