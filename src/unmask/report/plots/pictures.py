"""Images that fell: clean, adversarial, and the difference between them."""

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

__all__ = ["Picture", "Strip", "address", "pixels", "strip"]

GAIN = 10  # of differences
SIDE = 160  # pixels, to which larger images are reduced
LOSSLESS = 16_000  # bytes, beyond which a picture is compressed with loss


@dataclass(frozen=True)
class Picture:
    """One example as ``data:`` addresses, by what they show."""

    images: Mapping[str, str]
    label: str
    predicted: str
    index: int


@dataclass(frozen=True)
class Strip:
    """Pictures of one case, all of the same things; differences are enlarged around grey."""

    pictures: tuple[Picture, ...]
    pixelated: bool  # small images, to be enlarged without smoothing


def strip(run: RunFolder, case: CaseInfo, max_pictures: int = 8) -> Strip | None:
    """The first examples that were right and fell under an adaptive attack, where their images were kept.

    Raises UnmaskError where a file of examples is broken.
    """
    clean = worst(by_attack(run.of(case, Role.CLEAN)).values())
    adaptive = worst(by_attack(run.of(case, Role.ADAPTIVE)).values())
    fallen = [f for i, f in adaptive.items() if f.example.robust == 0 and i in clean and clean[i].example.robust == 1]
    kept = StoredTensors(run)
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
            f"difference, {GAIN} times": 0.5 + GAIN * (_boxed(adversarial) - _boxed(image)),
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
    return Strip(tuple(pictures), pixelated=side < SIDE / 2) if pictures else None


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
