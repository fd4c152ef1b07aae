"""An animation of an attack: frames side by side that the page moves past a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unmask.report.plots.pictures import address, pixels
from unmask.report.plots.stored_tensors import Array
from unmask.report.plots.trajectories import REFUSED, Trajectory
from unmask.report.run_folder import CaseInfo

__all__ = ["Animation", "Frame", "animation"]

_SIDE = 112  # of a frame, to which larger images are reduced
_SECONDS = 0.5  # a frame


@dataclass(frozen=True)
class Frame:
    """What is said of one frame."""

    step: int
    answer: str
    wrong: bool
    true: float  # margin on the model
    view: float  # and through the attack's view


@dataclass(frozen=True)
class Animation:
    """One example under one attack."""

    attack: str
    index: int
    label: str
    reels: Mapping[str, str]  # what it shows -> a ``data:`` address of all frames side by side
    frames: tuple[Frame, ...]
    pixelated: bool  # small images, to be enlarged without smoothing

    @property
    def seconds(self) -> float:
        """Of moving; the last frame stays for a quarter of that."""
        return _SECONDS * len(self.frames)


def animation(case: CaseInfo, trajectories: Sequence[Trajectory]) -> Animation | None:
    """The trajectory with most frames, of those that fool the model if there are any; None for none.

    The change is enlarged so that the largest of the whole trajectory is black or white, around grey.
    """
    longest = max(trajectories, key=lambda trajectory: (trajectory.falls, len(trajectory.step)), default=None)
    if longest is None:
        return None
    image = longest.image.astype(np.float32)
    change = image - image[0]
    gain = 0.5 / max(float(np.abs(change).max()), 1e-6)
    shown = {"image": image, f"change, {gain:.2g} times": 0.5 + gain * change}
    if longest.seen is not None:
        shown["as the classifier sees it"] = longest.seen.astype(np.float32)
    return Animation(
        attack=longest.attack,
        index=longest.index,
        label=case.name_of(longest.label),
        reels={name: _reel(frames) for name, frames in shown.items()},
        frames=tuple(_frames(case, longest)),
        pixelated=max(image.shape[2:]) < _SIDE,
    )


def _frames(case: CaseInfo, trajectory: Trajectory) -> list[Frame]:
    return [
        Frame(step, "refused" if predicted == REFUSED else case.name_of(predicted), wrong, true, view)
        for step, predicted, wrong, true, view in zip(
            *(
                value.tolist()
                for value in (trajectory.step, trajectory.predicted, trajectory.wrong, trajectory.true, trajectory.view)
            ),
            strict=True,
        )
    ]


def _reel(frames: Array) -> str:
    """(K, C, H, W) as one picture of K frames."""
    pictures = [pixels(frame) for frame in frames]
    for picture in pictures:
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    width, height = pictures[0].size
    reel = Image.new(pictures[0].mode, (width * len(pictures), height))
    for place, picture in enumerate(pictures):
        reel.paste(picture, (width * place, 0))
    return address(reel)
