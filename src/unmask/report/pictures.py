"""Images that fell: clean, adversarial, and the difference between them."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from unmask.report.read import Case, Found, RunFolder, by_attack
from unmask.report.table import worst

__all__ = ["Picture", "Strip", "strip"]

GAIN = 10  # of differences
SIDE = 224  # pixels, to which larger images are reduced

Array = NDArray[Any]


@dataclass(frozen=True)
class Picture:
    """One example as three ``data:`` addresses."""

    clean: str
    adversarial: str
    difference: str
    label: str
    predicted: str
    index: int


@dataclass(frozen=True)
class Strip:
    """Pictures of one case; differences are shown ``gain`` times as large around grey."""

    pictures: tuple[Picture, ...]
    gain: int
    pixelated: bool  # small images, to be enlarged without smoothing


def strip(run: RunFolder, case: Case, most: int = 8) -> Strip | None:
    """The first examples that were right and fell under an adaptive attack, where their images were kept.

    Raises ValueError where a file of examples is broken.
    """
    clean = worst(by_attack(run.of(case, "clean")).values())
    adaptive = worst(by_attack(run.of(case, "adaptive")).values())
    fallen = [f for i, f in adaptive.items() if f.example.robust == 0 and i in clean and clean[i].example.robust == 1]
    files: dict[str, dict[str, Array]] = {}
    shown: list[tuple[Found, Array, Array]] = []
    for found in fallen:
        if len(shown) == most:
            break
        file = found.record.file
        if file is None or not (run.path / file).exists():
            continue
        if file not in files:
            files[file] = _load(run, file)
        place = int(np.flatnonzero(files[file]["index"] == found.example.index)[0])
        if place < len(files[file]["clean"]):
            shown.append((found, files[file]["clean"][place], files[file]["x_adv"][place]))
    if not shown:
        return None
    pictures = tuple(
        Picture(
            clean=_png(image),
            adversarial=_png(adversarial),
            difference=_png(0.5 + GAIN * (adversarial - image)),
            label=_class(case, found.example.label),
            predicted=_class(case, found.example.predicted),
            index=found.example.index,
        )
        for found, image, adversarial in shown
    )
    return Strip(pictures, GAIN, pixelated=max(shown[0][1].shape[1:]) < SIDE / 2)


def _load(run: RunFolder, file: str) -> dict[str, Array]:
    try:
        tensors = load_file(run.path / file)
        return {name: tensors[name] for name in ("x_adv", "index", "clean")}
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{run.path / file} is broken ({error}): delete it to go without") from error


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
