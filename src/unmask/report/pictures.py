"""Images that fell: clean, adversarial, and the difference between them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmask.report.kept import Kept
from unmask.report.read import Case, RunFolder, by_attack
from unmask.report.table import worst

__all__ = ["Picture", "Strip", "strip"]

GAIN = 10  # of differences
SIDE = 224  # pixels, to which larger images are reduced

Array = NDArray[Any]


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


def strip(run: RunFolder, case: Case, most: int = 8) -> Strip | None:
    """The first examples that were right and fell under an adaptive attack, where their images were kept.

    Raises ValueError where a file of examples is broken.
    """
    clean = worst(by_attack(run.of(case, "clean")).values())
    adaptive = worst(by_attack(run.of(case, "adaptive")).values())
    fallen = [f for i, f in adaptive.items() if f.example.robust == 0 and i in clean and clean[i].example.robust == 1]
    kept = Kept(run)
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
            f"difference, {GAIN} times": 0.5 + GAIN * (adversarial - image),
        }
        side = max(image.shape[1:])
        pictures.append(
            Picture(
                images={name: _png(shown) for name, shown in images.items() if shown is not None},
                label=_class(case, found.example.label),
                predicted=_class(case, found.example.predicted),
                index=found.example.index,
            )
        )
        if len(pictures) == most:
            break
    return Strip(tuple(pictures), pixelated=side < SIDE / 2) if pictures else None


def _png(image: Array) -> str:
    """(C, H, W) in [0, 1], grey unless C is 3, as a ``data:`` address."""
    pixels = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0)
    picture = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    out = BytesIO()
    picture.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + b64encode(out.getvalue()).decode()


def _class(case: Case, number: int) -> str:
    return case.classes[number] if number < len(case.classes) else str(number)
