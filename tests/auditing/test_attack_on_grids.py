"""The command `attack` on models that answer otherwise between the levels of a grid than on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import unmask

MODELS = """
import torch
from torch import nn
from unmask import Output
from unmask.cases import find_case


class Picky(nn.Module):
    def __init__(self, refuses):
        super().__init__()
        self.network, self.refuses = find_case("plain-digits").load(), refuses

    def forward(self, x):
        off = (x * 16 - (x * 16).round()).abs().flatten(1).amax(1)
        if self.refuses:
            return Output(self.network(x), off - 1e-3)
        coarse = self.network((x * 2).round() / 2).argmax(1)
        return torch.where(off[:, None] > 1e-3, 10.0 * nn.functional.one_hot(coarse, 10), self.network(x))


def refuses():
    return Picky(True).eval()


def answers_a_constant():
    return Picky(False).eval()


def itself():
    return find_case("plain-digits").load()
"""


def report(folder: Path, model: str, attack: str) -> dict[str, Any]:
    (folder / "picky.py").write_text(MODELS)
    target, run = f"{folder / 'picky.py'}:{model}", folder / "run"
    options = ["--data", "digits", "--eps", "0.15", "--n", "24", "--attack", attack]
    assert unmask("attack", target, *options, "--out", str(run)) == 0
    assert unmask("verify", str(run)) == 0
    assert unmask("verify", str(run), "--no-examine") == 0
    (row,) = json.loads((run / "report.json").read_text())["rows"]
    return row  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", ["refuses", "answers_a_constant"])
def test_the_attack_follows_once_more_over_the_grid(model: str, tmp_path: Path) -> None:
    """Without the condition nothing is left; on the grid one image of 24 may stand, as the ball is smaller there."""
    row = report(tmp_path, model, "apgd")
    assert [attack["name"] for attack in row["attacks"]] == ["apgd", "apgd, on the grid of k/16"]
    assert row["plain"]["value"] >= 0.9
    assert row["adaptive"]["value"] <= 0.1
    assert row["masking"] == "masked"
    (told,) = json.loads((tmp_path / "run" / "run.json").read_text())["cases"][0]["setup"]
    assert (told["kind"], told["remedy"]) == ("grid", "Snapped(16, attack)")


def test_an_attack_by_scores_follows_too_and_is_an_upper_bound(tmp_path: Path) -> None:
    row = report(tmp_path, "refuses", "square")
    assert row["attacks"][0]["accuracy"]["value"] == 1.0
    assert row["adaptive"]["value"] <= 0.25
    assert (row["masking"], row["upper_bound"]) == ("inconclusive", True)


def test_a_model_that_an_attack_breaks_is_not_attacked_twice(tmp_path: Path) -> None:
    row = report(tmp_path, "itself", "apgd")
    assert [attack["name"] for attack in row["attacks"]] == ["apgd"]
    assert row["plain"]["value"] == 0.0
