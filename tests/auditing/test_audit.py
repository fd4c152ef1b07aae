"""End to end: what the command finds of models whose truth is known, and the files it leaves."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.commands import unmask

MODELS = """
import torch

from benchmarks.zoo import ZOO
from unmask.cases import find_case

def make(name, net):
    return lambda: ZOO[name].build(find_case(net).load()).eval()

rounded = make("InlineRound", "plain-digits")
numpy = make("ThroughNumpy", "plain-digits")
negated = make("NegatedGradient", "plain-digits")
probabilities = make("SharpProbabilities", "plain-digits")
hard = make("HardLabel", "plain-digits")
detached_and_hot = make("DetachedAndHot", "plain-digits")
triple = make("Triple", "plain-digits")
chaotic = make("ChaoticMap", "plain-digits")
hot_and_strong = make("Temperature", "madry-digits")

class Crowded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = find_case("plain-digits").load()

    def forward(self, x):
        return self.net(x - 0.5 * (x.mean(0) - 0.3))

def crowded():
    return Crowded().eval()

class Mapped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.detector = ZOO["RefusesHard"].build(find_case("plain-digits").load())

    def forward(self, x):
        logits, reject = self.detector.margin(x)
        return {"score": reject, "reject": reject > 0, "logits": logits}

def mapped():
    return Mapped().eval()

unsure = make("RefusesHard", "plain-digits")
refusing = make("RefusingClass", "plain-digits")
steep = make("SteepSteps", "plain-digits")
weak = make("Itself", "plain-digits")
strong = make("Itself", "madry-digits")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ``models.py``; the runs of its models go there."""
    path = tmp_path_factory.mktemp("audits")
    (path / "models.py").write_text(MODELS)
    return path


def audit(folder: Path, name: str) -> dict[str, Any]:
    n = "16" if name == "triple" else "32"
    command = ["audit", f"{folder}/models.py:{name}", "--data", "digits", "--eps", "0.15", "--n", n]
    assert unmask(*command, "--budget", "quick", "--out", str(folder / name)) == 0
    report: dict[str, Any] = json.loads((folder / name / "report.json").read_text())
    return report


audited = cache(audit)  # several tests look at the same report


@pytest.mark.parametrize(
    ("name", "kinds", "places"),
    [
        ("rounded", {"shattered"}, {""}),
        ("numpy", {"shattered"}, {""}),
        ("negated", {"shattered"}, {""}),
        ("probabilities", {"vanishing"}, {""}),
        ("hard", {"shattered"}, {""}),
        ("chaotic", {"vanishing"}, {""}),
        ("detached_and_hot", {"shattered", "vanishing"}, {""}),
        ("triple", {"shattered", "vanishing", "stochastic"}, {"quantize", "", "drop"}),
    ],
)
def test_masked_models_are_seen_through(name: str, kinds: set[str], places: set[str], folder: Path) -> None:
    """Their network has nothing left under the same ball; a random one is right in some of its draws, by luck."""
    report = audited(folder, name)
    assert report["masking"] in ("masked", "partly masked")
    assert {finding["kind"] for finding in report["findings"]} == kinds
    assert {finding["module"] for finding in report["findings"]} == places
    assert report["accuracy"]["adaptive"]["value"] <= (0.3 if "stochastic" in kinds else 0.0)
    assert report["accuracy"]["plain"]["value"] > report["accuracy"]["adaptive"]["value"] + 0.1
    assert report["warnings"] == []


def test_a_hot_robust_model_keeps_what_it_had(folder: Path) -> None:
    hot, strong = audited(folder, "hot_and_strong"), audited(folder, "strong")
    assert hot["accuracy"]["adaptive"]["value"] == pytest.approx(strong["accuracy"]["adaptive"]["value"], abs=0.03)


@pytest.mark.parametrize("name", ["weak", "strong"])
def test_sound_models_raise_no_alarm(name: str, folder: Path) -> None:
    report = audited(folder, name)
    assert report["masking"] == "no masking found"
    assert report["findings"] == []
    assert report["warnings"] == []


@pytest.mark.parametrize("name", ["unsure", "refusing", "mapped"])
def test_a_detector_is_evaded_together_with_its_classifier(name: str, folder: Path) -> None:
    """The network is sure of its mistakes, so that nothing is left of either kind."""
    report = audited(folder, name)
    assert report["accuracy"]["clean"]["value"] > 0.9
    assert report["accuracy"]["adaptive"]["value"] <= 0.1
    assert [found["kind"] for found in report["lint"]] == (["refusals"] if name == "refusing" else [])
    assert report["refused"]["clean"] is not None
    assert unmask("verify", str(folder / name)) == 0


def test_a_class_that_is_said_to_be_none_is_a_wrong_answer(folder: Path, tmp_path: Path) -> None:
    command = ["audit", f"{folder}/models.py:refusing", "--data", "digits", "--eps", "0.15", "--n", "16"]
    assert unmask(*command, "--budget", "quick", "--reject-class", "-1", "--out", str(tmp_path / "none")) == 0
    report = json.loads((tmp_path / "none" / "report.json").read_text())
    assert (report["lint"], report["refused"]["adaptive"]) == ([], 0.0)
    assert unmask(*command, "--reject-class", "11", "--out", str(tmp_path / "wrong")) == 2


def test_mistakes_are_told_and_what_they_spoil(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = audit(folder, "crowded")
    (found,) = report["lint"]
    assert (found["kind"], found["module"]) == ("batch", "")
    assert found["evidence"]["change"] > 0
    assert report["findings"] == []
    assert any("other images of its batch" in warning for warning in report["warnings"])
    assert report["masking"] == "inconclusive"
    assert "the output for an example depends on the other examples" in capsys.readouterr().out
    assert "compute the output for each example independently" in (folder / "crowded" / "report.html").read_text()


def test_the_files_of_an_audit(folder: Path) -> None:
    report = audited(folder, "rounded")
    assert report["schema"] == "unmask.audit/3"
    assert report["threat"] == {"norm": "linf", "eps": 0.15, "unit": "raw"}
    assert {attack["name"] for attack in report["attacks"]} == {"plain", "adaptive", "transfer", "black-box"}
    assert {"noise", "eps 0", "unbounded", "one step", "doubled steps", "doubled eps"} < set(report["controls"])
    done = [json.loads(line) for line in (folder / "rounded" / "records.jsonl").read_text().splitlines()]
    after = {one["job"]["attack"]: one["job"]["options"].get("after") for one in done}
    assert after["doubled steps"] == ["adaptive"], "twice the steps are for what the adaptive attack leaves"
    page = (folder / "rounded" / "report.html").read_text()
    assert "torch.round(x * LEVELS) / LEVELS" in page
    assert "view = unmask.straight_through" in page
    again = audit(folder, "rounded")
    assert again == report, "the same command goes on with the same records"
    assert unmask("verify", str(folder / "rounded")) == 0


def test_a_budget_in_seconds(folder: Path, tmp_path: Path) -> None:
    command = ["audit", f"{folder}/models.py:strong", "--data", "digits", "--eps", "0.15", "--n", "8"]
    started = time.monotonic()
    assert unmask(*command, "--budget", "0.2s", "--out", str(tmp_path / "timed")) == 0
    assert time.monotonic() - started < 60
    report = json.loads((tmp_path / "timed" / "report.json").read_text())
    assert report["diagnosis"]["budget"] == "0.2s"
    assert unmask("verify", str(tmp_path / "timed")) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--budget", "endless"],
            "no budget 'endless'; budgets: quick, standard, thorough, or seconds for each example",
        ),
        (["--budget", "0s"], "no budget '0s'"),
        (["--eps", "-1"], "eps"),
        (["--norm", "l7"], "l7"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["audit", "case:plain-digits", "--data", "digits", "--eps", "0.1", "--out", str(tmp_path / "x")]
    assert unmask(*command, *options) == 2
    assert said in capsys.readouterr().err
