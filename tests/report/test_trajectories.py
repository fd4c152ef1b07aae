"""Loss curves and films of attacks, from files made by hand."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from unmask.kinds import Role
from unmask.records import Record
from unmask.report import write
from unmask.report.plots.animation import Animation, animation
from unmask.report.plots.losses import losses
from unmask.report.plots.trajectories import REFUSED, trajectories
from unmask.report.run_folder import RunFolder

Array = NDArray[Any]


def keep(builder: Any, record: Record, images: Array, predicted: Array, **more: Array) -> None:
    """Ways of examples 0, 1, ...: images (N, K, C, H, W), classes (N, K)."""
    count, frames = predicted.shape
    told: dict[str, Array] = {
        "way_index": np.repeat(np.arange(count), frames),
        "way_step": np.tile(np.arange(frames), count),
        "way_image": images.reshape(-1, *images.shape[2:]).astype(np.float16),
        "way_true": np.linspace(-2, 1, count * frames, dtype=np.float32),
        "way_view": np.linspace(-3, 2, count * frames, dtype=np.float32),
        "way_predicted": predicted.reshape(-1),
        **more,
    }
    path = builder.path / str(record.file)
    save_file({**load_file(path), **told}, path)


def dim(count: int, frames: int) -> Array:
    """Grey images that get darker by 1/8 a frame."""
    return np.tile(0.5 - np.arange(frames).reshape(1, -1, 1, 1, 1) / 8, (count, 1, 1, 4, 4))


@pytest.fixture
def kept(builder: Any) -> Path:
    builder.case("broken", ("plain", "weak", "strong"))
    builder.record("broken", "clean", [1, 1, 1], role="clean", images=True)
    keep(builder, builder.record("broken", "plain", [1, 1, 1], role="plain", images=True), dim(3, 2), np.ones((3, 2)))
    keep(builder, builder.record("broken", "weak", [1, 1, 1], images=True), dim(3, 2), np.ones((3, 2)))
    answers = np.array([[1, 1, REFUSED, 1], [1, 0, 0, 2], [1, 1, 1, 1]])
    keep(builder, builder.record("broken", "strong", [1, 0, 1], images=True), dim(3, 4), answers)
    builder.case("bare", ("plain",))
    builder.record("bare", "plain", [1, 1, 1], role="plain", images=True)
    return Path(builder.write())


def test_ways_are_those_of_the_strongest_attack(kept: Path) -> None:
    run = RunFolder.read(kept)
    found = trajectories(run, run.cases[0], Role.ADAPTIVE)
    assert [(way.attack, way.index, way.label, way.falls) for way in found] == [
        ("strong", 0, 1, False),
        ("strong", 1, 1, True),
        ("strong", 2, 1, False),
    ]
    assert found[1].wrong.tolist() == [False, True, True, True]
    assert found[0].wrong.tolist() == [False] * 4  # a refusal is no mistake
    assert [way.role for way in trajectories(run, run.cases[0], Role.PLAIN)] == ["plain"] * 3
    assert trajectories(run, run.cases[1], Role.PLAIN) == []


def test_attacks_by_less_than_the_whole_model_are_looked_at_only_where_there_are_no_others(builder: Any) -> None:
    for name, access in (("mixed", "white box"), ("alone", "grey box")):
        builder.case(name, ("bpda", "transfer"), access={"bpda": access, "transfer": "grey box"})
        for attack, robust in (("bpda", 1), ("transfer", 0)):
            keep(builder, builder.record(name, attack, [robust], images=True), dim(1, 2), np.ones((1, 2)))
    run = RunFolder.read(builder.write())
    assert [trajectories(run, case, Role.ADAPTIVE)[0].attack for case in run.cases] == ["bpda", "transfer"]


def test_the_film_is_that_of_the_longest_way_of_any_adaptive_attack_that_falls(builder: Any) -> None:
    builder.case("broken", ("quick", "slow"))
    for attack, robust, frames in (("quick", [0, 0], 2), ("slow", [0, 1], 4)):
        answers = np.array([[1] * (frames - 1) + [2], [1] * (frames - 1) + [2 - robust[1]]])
        keep(builder, builder.record("broken", attack, robust, images=True), dim(2, frames), answers)
    path = builder.write()
    assert trajectories(RunFolder.read(path), RunFolder.read(path).cases[0], Role.ADAPTIVE)[0].attack == "quick"
    write(path)
    page = (path / "report.html").read_text()
    assert page.count('<figure class="replay') == 1
    assert 'alt="example 0 under slow, image, 4 frames side by side"' in page


def reel(shown: Animation, name: str) -> Array:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.reels[name].split(",")[1]))))


def test_a_film_shows_the_frames_of_an_example_that_fell_side_by_side(kept: Path) -> None:
    run = RunFolder.read(kept)
    shown = animation(run.cases[0], trajectories(run, run.cases[0], Role.ADAPTIVE))
    assert shown is not None
    assert (shown.attack, shown.index, shown.label, shown.pixelated) == ("strong", 1, "one", True)
    assert [(frame.step, frame.answer, frame.wrong) for frame in shown.frames] == [
        (0, "one", False),
        (1, "zero", True),
        (2, "zero", True),
        (3, "two", True),
    ]
    assert list(shown.reels) == ["image", "change, 1.3 times"]
    assert reel(shown, "image")[0].tolist() == [v for v in (128, 96, 64, 32) for _ in range(4)]
    changes = reel(shown, "change, 1.3 times")[0][::4].tolist()
    assert changes == [128, 85, 42, 0]  # grey where nothing changed, black where most did


def test_what_the_classifier_saw_is_shown_beside(builder: Any) -> None:
    builder.case("behind", ("bpda",))
    record = builder.record("behind", "bpda", [0], images=True)
    keep(builder, record, dim(1, 2), np.array([[1, REFUSED]]), way_seen=np.full((2, 1, 4, 4), 0.25, np.float16))
    run = RunFolder.read(builder.write())
    shown = animation(run.cases[0], trajectories(run, run.cases[0], Role.ADAPTIVE))
    assert shown is not None
    assert (reel(shown, "as the classifier sees it") == 64).all()
    assert [(frame.answer, frame.wrong) for frame in shown.frames] == [("one", False), ("refused", False)]


def test_long_films_of_photographs_stay_small(builder: Any) -> None:
    """Noise, which no format compresses: 25 frames of two photographs."""
    noise = np.random.default_rng(0).uniform(size=(1, 25, 3, 224, 224))
    builder.case("large", ("bpda",))
    keep(builder, builder.record("large", "bpda", [0], images=True), noise, np.ones((1, 25), int))
    run = RunFolder.read(builder.write())
    shown = animation(run.cases[0], trajectories(run, run.cases[0], Role.ADAPTIVE))
    assert shown is not None
    assert not shown.pixelated
    assert reel(shown, "image").shape == (112, 25 * 112, 3)
    assert sum(map(len, shown.reels.values())) < 500_000


def test_loss_curves_have_a_solid_and_a_dotted_line_for_each_trajectory(kept: Path) -> None:
    run = RunFolder.read(kept)
    plain, adaptive = (trajectories(run, run.cases[0], role) for role in (Role.PLAIN, Role.ADAPTIVE))
    svg = losses("broken", [*plain, *adaptive])
    lines = re.findall(r'<path d="[^"]*" clip-path="[^"]*" style="([^"]*)"', svg)
    drawn = {colour: [line for line in lines if f"var(--{colour})" in line] for colour in ("plain", "adaptive")}
    assert {colour: len(found) for colour, found in drawn.items()} == {"plain": 6, "adaptive": 6}
    assert all(sum("dasharray" in line for line in found) == 3 for found in drawn.values())
    assert "z_j - z_y" in svg
    assert svg == losses("broken", [*plain, *adaptive])
    assert losses("broken", []) == ""


def test_the_page_moves_only_for_those_who_want_it_and_can_be_read_without(kept: Path) -> None:
    write(kept)
    page = (kept / "report.html").read_text()
    assert page.count('<figure class="replay') == 1
    assert page.count('class="reel"') == 2
    assert "--frames: 4" in page
    assert re.findall(r'alt="(example 1 under strong, [^"]*)"', page) == [
        "example 1 under strong, image, 4 frames side by side",
        "example 1 under strong, change, 1.3 times, 4 frames side by side",
    ]
    moving = re.search(r"@media \(prefers-reduced-motion: no-preference\) \{(.*?)\n\}", page, re.DOTALL)
    assert moving
    assert set(re.findall(r"animation\b[^;]*", page)) == set(re.findall(r"animation\b[^;]*", moving[1]))
    assert "animation-play-state: paused" in moving[1]
    rows = re.findall(r'<th scope="row" class="number">(\d+)</th><td>(\w+)</td>', page)
    assert rows == [("0", "one"), ("1", "zero"), ("2", "zero"), ("3", "two")]
