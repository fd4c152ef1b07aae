"""Images that an adaptive attack broke: clean, adversarial, and the change between them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from unmask.errors import UnmaskError
from unmask.kinds import Role
from unmask.report.plots.stored_tensors import Array, StoredTensors
from unmask.report.run_folder import CaseInfo, RunFolder, by_attack
from unmask.report.verdict.worst_case import worst

__all__ = ["Gallery", "Picture", "address", "gallery", "pixels"]

SIDE = 160  # pixels, to which larger images are reduced
LOSSLESS = 16_000  # bytes, beyond which a picture is compressed with loss


_SCALED_BY_EPS = (
    "change / (2 eps)",
    "The change is scaled by 1/(2 eps): black is -eps, grey no change, white +eps.",
)
_SCALED_BY_LARGEST = (
    "change, scaled",
    "The change is scaled so that its largest element is black or white; grey is no change.",
)


@dataclass(frozen=True)
class Picture:
    """One example as ``data:`` addresses, by what they show."""

    images: Mapping[str, str]
    label: str
    predicted: str
    index: int


@dataclass(frozen=True)
class Gallery:
    """Pictures of one case, all of the same things; changes are scaled around mid-grey, and ``scaling`` says how."""

    pictures: tuple[Picture, ...]
    pixelated: bool  # small images, to be enlarged without smoothing
    scaling: str


def gallery(run: RunFolder, case: CaseInfo, max_pictures: int = 8) -> Gallery | None:
    """The first examples that were right and fell under an adaptive attack, where their images were kept.

    Raises UnmaskError where a file of examples is broken.
    """
    clean = worst(by_attack(run.of(case, Role.CLEAN)).values())
    adaptive = worst(by_attack(run.of(case, Role.ADAPTIVE)).values())
    fallen = [f for i, f in adaptive.items() if f.example.robust == 0 and i in clean and clean[i].example.robust == 1]
    kept = StoredTensors(run)
    radius = _radius(case)
    name, scaling = _SCALED_BY_EPS if radius else _SCALED_BY_LARGEST
    pictures: list[Picture] = []
    side = 0
    for found in fallen:
        image, adversarial = kept.of(found, "clean"), kept.of(found, "x_adv")
        if image is None or adversarial is None:
            continue
        before, after = kept.of(clean[found.example.index], "seen"), kept.of(found, "seen")
        images = {
            "clean": image,
            "clean, as the classifier sees it": before,
            "adversarial": adversarial,
            "adversarial, as the classifier sees it": after,
            name: _change(_boxed(image), _boxed(adversarial), radius),
        }
        side = max(image.shape[1:])
        pictures.append(
            Picture(
                images={name: _reduced(shown) for name, shown in images.items() if shown is not None},
                label=case.name_of(found.example.label),
                predicted=case.name_of(found.example.predicted),
                index=found.example.index,
            )
        )
        if len(pictures) == max_pictures:
            break
    return Gallery(tuple(pictures), side < SIDE / 2, scaling) if pictures else None


def _radius(case: CaseInfo) -> float:
    """The largest change of a pixel in the threat's ball; 0 where the threat bounds the pixels only together."""
    alone = case.threat.norm == "linf" and case.threat.unit in ("raw", "rms", "rms_pixel")
    return case.threat.eps if alone else 0.0


def _change(before: Array, after: Array, radius: float) -> Array:
    """The change scaled by 1 / (2 radius) around mid-grey; without a radius by its own largest element."""
    change = after.astype(np.float32) - before
    shown: Array = 0.5 + change / (2 * max(radius or float(np.abs(change).max()), 1e-6))
    return shown


def pixels(image: Array) -> Image.Image:
    """(C, H, W) in [0, 1], grey unless C is 3. Raises UnmaskError where there is none."""
    if not image.size:
        raise UnmaskError("a file of examples is broken (an image without pixels)", "delete it to report without it")
    image = _boxed(image)
    values = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0)
    return Image.fromarray((values * 255).round().astype(np.uint8))


def _boxed(image: Array) -> Array:
    """In [0, 1]: untrusted files may hold anything."""
    boxed: Array = np.nan_to_num(image).clip(0, 1)
    return boxed


def address(picture: Image.Image) -> str:
    """A picture as a ``data:`` address, in formats that any browser knows."""
    out, kind = BytesIO(), "png"
    picture.save(out, "PNG", optimize=True)
    if out.tell() > LOSSLESS:
        out, kind = BytesIO(), "webp"
        picture.save(out, "WEBP", quality=75, method=6)
    return f"data:image/{kind};base64," + b64encode(out.getvalue()).decode()


def _reduced(image: Array) -> str:
    picture = pixels(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return address(picture)
