"""What `unmask attack` says of a model whose gradient is of no use, or that was made for other images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.commands import unmask

MODELS = """
import torch
from torch import nn
from unmask.cases import find_case


class Around(nn.Module):
    def __init__(self, before):
        super().__init__()
        self.before, self.net = before, find_case("plain-digits").load()
        self.eval()

    def forward(self, x):
        return self.net(self.before(x))


class Cut(Around):
    def forward(self, x):
        with torch.inference_mode():
            return super().forward(x)


def cut(): return Cut(lambda x: x)
def nan(): return Around(lambda x: x.pow(0.5).pow(2))
def rounded(): return Around(lambda x: (16 * x).round() / 16)
def of_bytes(): return Around(lambda x: (x - 0.01) / 255)
def sound(): return Around(lambda x: x)
def leaves():
    import sys
    return Around(lambda x: sys.exit(0) if len(x) != 8 else x)
"""


def attacked(folder: Path, model: str, *more: str) -> dict[str, Any]:
    (folder / "models.py").write_text(MODELS)
    out = folder / f"run-{model}"
    target = f"{folder / 'models.py'}:{model}"
    options = ["--data", "digits", "--eps", "0.15", "--n", "32", "--steps", "20", "--out", str(out)]
    assert unmask("attack", target, *options, *more) == 0
    row: dict[str, Any] = json.loads((out / "report.json").read_text())["rows"][0]
    return row


@pytest.mark.parametrize(
    ("model", "words", "place"),
    [
        ("cut", "the attack had no gradient on 100.0 % of the images", "models.py:14 return self.net(self.before(x))"),
        ("rounded", "the attack had no gradient on 100.0 % of the images", "def rounded()"),
        ("nan", "the attack's gradient had NaN or infinite elements on 100.0 % of the images", "def nan()"),
    ],
)
def test_no_gradient_is_no_robustness(tmp_path: Path, model: str, words: str, place: str) -> None:
    row = attacked(tmp_path, model)
    assert row["plain"]["value"] > 0.05  # which says nothing
    assert (row["masking"], row["reliable"], row["upper_bound"]) == ("inconclusive", False, True)
    (warning,) = [text for text in row["warnings"] if text.startswith(words)]
    assert place in warning
    assert "unmask audit" in warning


def test_a_sound_model_has_no_warning(tmp_path: Path) -> None:
    row = attacked(tmp_path, "sound")
    assert (row["masking"], row["warnings"], row["plain"]["value"]) == ("no masking found", [], 0.0)


def test_images_of_another_range_come_first_and_the_option_mends_them(tmp_path: Path) -> None:
    row = attacked(tmp_path, "of_bytes")
    assert row["masking"] == "inconclusive"
    assert "of images in [0, 255] the model classifies 100% correctly" in row["warnings"][0]
    assert "--range 255" in row["warnings"][0]
    (tmp_path / "mended").mkdir()
    mended = attacked(tmp_path / "mended", "of_bytes", "--range", "255")
    assert (mended["masking"], mended["warnings"], mended["clean"]["value"]) == ("no masking found", [], 1.0)


def test_a_model_that_ends_the_process_has_not_succeeded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    target, options = f"{tmp_path / 'models.py'}:leaves", ["--data", "digits", "--eps", "0.15", "--n", "16"]
    for command in ("attack", "audit"):
        assert unmask(command, target, *options, "--out", str(tmp_path / command)) == 2
        assert re.fullmatch(r"unmask: .*(SystemExit at models\.py:\d+|ended the process).*\n", capfd.readouterr().err)
