"""Own data from the command line and from Python, from the images to the report and its verification."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import unmask as package
from tests.commands import unmask
from unmask.cases import find_case
from unmask.data import Dataset
from unmask.evaluation.execution_config import ExecutionConfig
from unmask.evaluation.plan import dataset_info
from unmask.evaluation.runner import LocalExecutor
from unmask.records import ThreatSpec

MODEL = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return net.eval()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten photographs of three classes and several sizes, and a model of three classes."""
    monkeypatch.chdir(tmp_path)
    random = np.random.RandomState(0)
    for number in range(10):
        path = tmp_path / "photos" / ("bird", "cat", "dog")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (12 + number, 15, 3)).astype(np.uint8)).save(path)
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


def attack(*more: str) -> int:
    options = ["--data", "photos", "--eps", "8/255", "--steps", "3", "--out", "run", *more]
    return unmask("attack", "model.py:build", *options)


def test_a_run_on_a_folder_from_attack_to_rerun(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack("--size", "14") == 0
    note = "photos (resized bilinearly to a short side of 16, cropped to the central 14 x 14, shuffled)"
    line = f"{note}: 10 images of 14 x 14 pixels, RGB; 3 classes: bird, cat, dog"
    assert capsys.readouterr().out.splitlines()[0] == line
    run = json.loads((folder / "run/run.json").read_text())
    assert (run["config"]["data"], run["config"]["size"]) == ("photos", 14)
    (case,) = run["cases"]
    assert (case["classes"], case["data_note"], case["n"]) == (["bird", "cat", "dog"], note, 10)
    assert unmask("report", "run") == 0
    html = (folder / "run/report.html").read_text()
    assert note in html
    capsys.readouterr()
    assert unmask("verify", "run", "--attack", "2") == 0
    assert "checks passed" in capsys.readouterr().out
    assert unmask("rerun", "run", "--out", "again") == 0
    assert "2 of 2 records are the same to the bit." in capsys.readouterr().out
    assert attack("--size", "13") == 2
    assert "holds another run (size 14, now 13)" in capsys.readouterr().err
    path = folder / "photos/cat/4.png"
    with Image.open(path) as image:
        pixels = np.asarray(image).copy()
    Image.fromarray(255 - pixels).save(path)
    assert unmask("verify", "run") == 1
    assert re.search(r"^FAILED .*the images", capsys.readouterr().out, re.MULTILINE)


def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"unmask: photos/\w+/\d\.png is 15x\d+ but photos/\w+/\d\.png is 15x\d+: give --size 224, for example, which "
        r"resizes and crops all images to one shape",
        line,
    )
    assert attack("--data", "digits", "--size", "14") == 2
    assert capsys.readouterr().err == "unmask: digits has images of one size: leave size out\n"
    assert attack("--data", "nothing.npz") == 2
    assert capsys.readouterr().err == "unmask: there is no folder or file nothing.npz: correct the path\n"


class Brightness(nn.Module):
    """Three classes by brightness."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([0.4 - mean, -((mean - 0.5) ** 2), mean - 0.6], 1)


def test_an_audit_in_python_of_a_loader_and_no_class_is_taken_for_a_refusal() -> None:
    y = torch.arange(24) % 2  # class 2 of the model has no image, and no name
    x = torch.rand(24, 3, 6, 6) * 0.1 + 0.2 + 0.25 * y[:, None, None, None]
    report = package.audit(
        Brightness(), DataLoader(TensorDataset(x, y), batch_size=5), package.Linf(0.01), n=16, budget="quick"
    )
    assert report.accuracy.clean is not None
    assert (report.accuracy.clean.value, report.accuracy.clean.n) == (1, 16)
    assert not any("refusal" in finding.where for finding in report.findings)


def test_an_audit_of_images_in_memory_takes_no_size() -> None:
    with pytest.raises(ValueError, match=r"^size is for a data set by name: resize images in memory before the audit$"):
        package.audit(Brightness(), (torch.rand(4, 3, 6, 6), torch.zeros(4).long()), package.Linf(0.1), size=4)


@pytest.mark.parametrize("n", [0, -3, "8", 2.5, True, None])
def test_an_audit_takes_a_whole_number_of_images(n: Any) -> None:
    with pytest.raises(ValueError, match=f"^n is {n!r}: give a whole number of images, 1 at least$"):
        package.audit(Brightness(), (torch.rand(4, 3, 6, 6), torch.arange(4) % 2), package.Linf(0.1), n=n)


def test_a_slash_at_the_end_of_a_folder_names_the_same_data(folder: Path) -> None:
    assert attack("--size", "14", "--out", "one") == 0
    assert attack("--size", "14", "--out", "other", "--data", "photos/") == 0
    one, other = (json.loads(Path(out, "run.json").read_text()) for out in ("one", "other"))
    assert (one["config"], one["jobs"]) == (other["config"], other["jobs"])


def test_an_executor_resizes_what_it_loads(folder: Path) -> None:
    assert LocalExecutor(ExecutionConfig(size=7)).dataset("photos", 50).images.shape == (10, 3, 7, 7)


def test_a_folder_called_like_a_known_data_set_has_no_categories_of_it() -> None:
    data = Dataset("imagenet", torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), ("a", "b"), "imagenet")
    assert dataset_info(data, 2, ThreatSpec("linf", 0.1, "raw"))["groups"] is None


@pytest.mark.parametrize("form", ["folder", "csv"])
def test_a_class_without_an_image_does_not_shift_the_others(form: str, tmp_path: Path) -> None:
    """The model has three classes; of the data two occur, of which one would get another number."""
    rows = ["path,label"]
    for row, name in enumerate(("dark", "middle", "dark", "middle")):
        place = tmp_path / "photos" / name / f"{row}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 6), (60 + 40 * row,) * 3).save(place)
        rows.append(f"{place},{name}")
    (tmp_path / "photos.csv").write_text("\n".join(rows))
    data = package.data.load(str(tmp_path / ("photos" if form == "folder" else "photos.csv")))
    with pytest.raises(package.UnmaskError, match="the model has 3 classes, but 2 occur in"):
        package.load_model(Brightness(), data)
    refusing = package.load_model(Brightness(), data, form=package.ModelForm(reject_class=2))
    assert refusing(data.batch()[0]).logits.shape == (4, 2)


def test_runs_on_other_images_are_not_compared(tmp_path: Path) -> None:
    x, y = package.data.load("digits", n=6).batch()
    runs = [
        package.audit(
            find_case("plain-digits").load(), (images, y), package.Linf(0.05), n=6, budget="quick", out=tmp_path / name
        )
        for name, images in (("one", x), ("two", 0.9 * x))
    ]
    assert len(runs) == 2
    with pytest.raises(package.UnmaskError, match=r"the images of .* differ: run both on the same"):
        package.compare(tmp_path / "one", tmp_path / "two")
    assert package.compare(tmp_path / "one", tmp_path / "one")[0].difference.value == 0
