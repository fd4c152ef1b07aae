"""Audits of models that nothing is known of but their answers, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands import unmask
from tests.test_black_box_models import service
from unmask.auditing.run import audit
from unmask.cases import find_case
from unmask.data import load
from unmask.threats import L1, Linf

NET = find_case("plain-digits").load()
DATA = load("digits", n=32)


@torch.no_grad()
def scores(x: Any) -> Any:
    return NET(torch.from_numpy(x)).numpy()


def labels(x: Any) -> Any:
    return np.eye(10)[scores(x).argmax(1)]


@pytest.mark.parametrize(("call", "third"), [(scores, "nes"), (labels, "labels")])
def test_an_undefended_model_is_broken_by_its_answers_alone(call: Any, third: str, tmp_path: Path) -> None:
    report = audit(call, DATA, Linf(0.15), n=24, budget="quick", out=tmp_path / "run")
    assert report.target == call.__name__
    assert {attack.name for attack in report.attacks} == {"transfer", "black-box", third}
    assert all(attack.backwards == 0 for attack in report.attacks if attack.name != "transfer")
    assert report.accuracy.plain is None
    assert report.accuracy.adaptive.value <= (0.25 if call is labels else 0.0), "with a few hundred queries"
    assert (report.masking, report.findings) == ("inconclusive", ())
    assert report.not_diagnosed_reason.startswith(f"the model answers {'labels' if call is labels else 'scores'} only")
    assert "could not be examined" in (tmp_path / "run" / "report.html").read_text()


def test_a_strong_model_keeps_what_it_has_and_controls_say_that_the_attack_works() -> None:
    net = find_case("madry-digits").load()

    @torch.no_grad()
    def strong(x: Any) -> Any:
        return net(torch.from_numpy(x)).numpy()

    report = audit(strong, DATA, Linf(0.1), n=24, budget="quick")
    assert report.accuracy.adaptive.value > 0.7
    assert (report.upper_bound, report.masking) == (True, "inconclusive")
    assert len(report.warnings) == 1, "no control came out wrong"
    assert "only black-box attacks were run" in report.warnings[0]
    assert {one.name for one in report.indicators} >= {"unconstrained failure", "incomplete optimisation"}


def off(x: Any, levels: int) -> Any:
    return np.abs(x * levels - np.round(x * levels)).reshape(len(x), 64).max(1) > 1e-3


@torch.no_grad()
def as_stored(x: Any) -> Any:
    """The class that the model gave to the nearest image of the data."""
    known, _ = DATA.batch()
    near = torch.cdist(torch.from_numpy(x).flatten(1), known.flatten(1)).argmin(1)
    return 10 * np.eye(10)[NET(known[near]).argmax(1)]


def keeps_its_answer(x: Any) -> Any:
    return np.where(off(x, 16)[:, None], as_stored(x), scores(x))


def refuses_by_a_class(x: Any) -> Any:
    refused = off(x, 16) & off(x, 255)
    found = np.concatenate((scores(x), np.full((len(x), 1), -100.0)), 1)
    return np.where(refused[:, None], 10 * np.eye(11)[10], found)


def refuses_and_answers_labels(x: Any) -> Any:
    return labels(x), off(x, 16) - 0.5


@pytest.mark.parametrize(
    ("call", "most"), [(keeps_its_answer, 0.1), (refuses_by_a_class, 0.1), (refuses_and_answers_labels, 0.35)]
)
def test_a_model_that_answers_otherwise_between_grey_levels_is_attacked_on_them(call: Any, most: float) -> None:
    """Of the same net without a grid the same attacks leave 0.0 by scores, and at most 0.25 by labels (see above)."""
    report = audit(call, DATA, Linf(0.15), n=24, budget="quick")
    assert report.accuracy.adaptive.value <= most
    assert report.masking == "inconclusive"
    (found,) = (one for one in report.lint if one.kind == "grid")
    assert found.evidence["robust_accuracy"] == 1.0
    assert all("over the grid of k/" in attack.description for attack in report.attacks)


def test_every_ball_has_attacks() -> None:
    report = audit(scores, DATA, L1(6.0), n=16, budget="quick")
    assert report.accuracy.adaptive.value < 0.9


def test_a_service_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(asked: Any) -> bytes:
        return json.dumps({"scores": scores(np.asarray(asked["images"], np.float32)).tolist()}).encode()

    with service(answer) as url:
        command = ["audit", url, "--data", "digits", "--eps", "0.15", "--n", "8", "--budget", "quick"]
        assert unmask(*command, "--out", str(tmp_path / "run")) == 0
        assert "Gradients are not diagnosed: the model answers scores only" in capsys.readouterr().out.replace(
            "\n", " "
        )
        assert unmask("verify", str(tmp_path / "run")) == 0
    assert unmask(*command, "--out", str(tmp_path / "gone")) == 2
    assert "check the address, and that the service runs" in capsys.readouterr().err


def test_a_factory_may_give_a_function_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "by_arrays.py"
    path.write_text("def build(): return lambda x: x.reshape(len(x), -1)[:, 20:30]")
    command = ["audit", f"{path}:build", "--data", "digits", "--eps", "0.3", "--n", "16", "--budget", "quick"]
    assert unmask(*command, "--out", str(tmp_path / "run")) == 0


@pytest.mark.parametrize(("size", "message"), [(8.0, "did you mean 8/255"), (0.0, "give a size above 0")])
def test_a_size_that_nobody_means_is_refused(size: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit(scores, DATA, Linf(size), n=16, budget="quick")
