"""Models of users from the command line: how they are named, normalised, reached, and run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.commands import unmask
from tests.evaluation.test_sources import Small, fake_timm
from tests.models import MEANS
from tests.test_black_box_models import service
from unmask.auditing.run import audit
from unmask.cases import find_case
from unmask.cli.options import FormOptions, Local
from unmask.data import load
from unmask.errors import UnmaskError
from unmask.models.forms import ModelForm
from unmask.records import built
from unmask.threats import Linf

FACTORIES = (
    MEANS
    + """

class Normal(Means):
    def forward(self, x):
        return super().forward(0.25 * x + 0.5)


def means():
    return Means().eval()


def normal():
    return Normal().eval()


def named_wrongly():
    class Detector(Means):
        def forward(self, x):
            z = super().forward(x)
            return {"logits": z, "rejected": z[:, 0]}
    return Detector().eval()
"""
)


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(FACTORIES)
    return tmp_path / "models.py"


def attack(target: str, *more: str, out: str = "run") -> int:
    few = ("--data", "digits", "--eps", "0.2", "--steps", "3", "--n", "8")
    return unmask("attack", target, *few, *more, "--out", out)


def examples(run: str) -> list[Any]:
    return [json.loads(line)["examples"] for line in Path(run, "records.jsonl").read_text().splitlines()]


def test_the_users_own_models_are_listed_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert unmask("list", "models") == 0
    names = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert names[:2] == ["path/to/file.py:factory", "package.module:factory"]
    others = names[2 : next(place for place, name in enumerate(names) if name.startswith("case:"))]
    assert others == [
        *("torchvision:NAME", "timm:NAME", "hf:ORG/NAME", "robustbench:NAME", "FILE.onnx", "FILE.pt2", "http://...")
    ]


def test_a_normalisation_of_the_command_line_is_that_of_the_model(factories: Path) -> None:
    """The model undoes what --mean and --std do, so that it answers as the network that takes the images."""
    assert attack("models.py:means") == 0
    assert attack("models.py:normal", "--mean", "0.5", "--std", "0.25", out="normal") == 0
    form = json.loads(Path("normal/run.json").read_text())["config"]["form"]
    assert (form["mean"], form["std"]) == ([0.5], [0.25])
    clean, own = examples("normal")[0], examples("run")[0]
    assert [one["predicted"] for one in clean] == [one["predicted"] for one in own]
    assert attack("models.py:normal", "--mean", "0.5", "--std", "0.25", out="normal") == 0  # it continues
    assert unmask("verify", "normal") == 0
    assert unmask("rerun", "normal", "--out", "again") == 0


WRONG: dict[str, tuple[list[str], str]] = {
    "channels": (["--mean", "0.5,0.5", "--std", "1,1"], "mean has 2 values, but the images have 1 channels: give one"),
    "no std": (["--mean", "0.5"], "mean has 1 values and std has 0: give both, with a value for each channel"),
    "zero": (["--mean", "0.5", "--std", "0"], "std takes positive numbers"),
    "words": (["--mean", "half"], "--mean 'half': give a number for each channel, such as 0.485,0.456,0.406"),
    "infinite": (["--mean", "inf", "--std", "1"], "--mean 'inf': give finite numbers"),
    "checkpoint": (["--checkpoint", "net.pt"], "--checkpoint is for torchvision:NAME and timm:NAME, not for models.py"),
    "classes": (["--num-classes", "3"], "--num-classes is for torchvision:NAME and timm:NAME, not for models.py:means"),
    "header": (["--header", "A: b"], "--header is for http://..., not for models.py:means: leave it out"),
    "rate": (["--rate-limit", "2"], "--rate-limit is for http://..., not for models.py:means: leave it out"),
    "no name": (["--header", "token"], "--header takes NAME: VALUE, such as 'Authorization: Bearer $TOKEN'"),
    "a space": (["--header", "two words: x"], "--header takes NAME: VALUE"),
    "unset": (["--header", "A: $UNMASK_NO_SUCH"], "--header A: the variable UNMASK_NO_SUCH of the environment is not"),
    "line break": (["--header", "A: b\nC: d"], "--header A: its value holds a line break or another character"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_option_is_one_line(name: str, factories: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, message = WRONG[name]
    assert attack("models.py:means", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("run").exists()


@pytest.mark.parametrize("command", ["attack", "audit"])
def test_a_detector_with_a_wrong_key_is_refused(
    command: str, factories: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--data", "digits", "--eps", "0.2", "--n", "8", "--out", "run")
    assert unmask(command, "models.py:named_wrongly", *few) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "answers 'rejected', a number for each image, beside `logits`: name it `reject`, if it refuses images" in line
    )
    assert "--output logits" in line
    assert attack("models.py:named_wrongly", "--output", "logits") == 0


def scorer(seen: list[Any]) -> Callable[[Any], bytes]:
    net = Small()

    def answer(asked: Any) -> bytes:
        with torch.no_grad():
            scores = net(torch.tensor(np.asarray(asked["images"], np.float32)))
        return json.dumps({"scores": scores.tolist()}).encode()

    return answer


def test_a_token_reaches_the_service_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", "sesame-7")
    seen: list[Any] = []
    secret = ("--header", "Authorization: Bearer $TOKEN", "--header", "X-Team: ${TOKEN}!")
    with service(scorer(seen), seen=seen) as url:
        options = ("--attack", "square", "--rate-limit", "1000", *secret)
        assert attack(url, *options) == 0
        assert unmask("verify", "run", *secret) == 0
        assert unmask("rerun", "run", "--out", "again", *secret) == 0
    sent = {(headers.get("Authorization"), headers.get("X-Team")) for headers, _ in seen}
    assert sent == {("Bearer sesame-7", "sesame-7!")}
    assert json.loads(Path("again/run.json").read_text())["config"]["form"]["rate_limit"] == 1000
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"sesame" in path.read_bytes()]
    captured = capsys.readouterr()
    assert "sesame" not in captured.out + captured.err


def test_weights_of_a_file_are_attacked_verified_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = fake_timm(monkeypatch)
    x, y = load("digits", "train").batch()
    means = torch.stack([x[y == k].mean(0).flatten() for k in range(10)])
    save_file({"read.weight": 2 * means, "read.bias": -(means**2).sum(1)}, tmp_path / "net.safetensors")
    options = ("--checkpoint", "net.safetensors", "--num-classes", "10", "--mean", "0", "--std", "1")
    assert attack(name, *options) == 0
    config = json.loads(Path("run/run.json").read_text())["config"]
    assert config["form"]["checkpoint"] == str(tmp_path / "net.safetensors")
    assert sum(one["robust"] for one in examples("run")[0]) >= 6
    assert unmask("verify", "run") == 0
    assert unmask("rerun", "run", "--out", "again") == 0


def test_the_form_of_the_options() -> None:
    options = FormOptions("nhwc", 255.0, "scores", 3, "1,2", "3,4", Path("a.pt"), 5, 2.0)
    config = Local(header=["A:b"]).config(strict=True, form=options.form())
    file = str(Path("a.pt").resolve())
    assert config.form == ModelForm(True, 255.0, "scores", 3, (1.0, 2.0), (3.0, 4.0), file, 5, ("A: b",), 2.0)


@pytest.mark.parametrize("mean", [3, "half", ["a"], None])
def test_a_mean_of_a_damaged_run_is_one_line(mean: Any) -> None:
    with pytest.raises(UnmaskError, match=r"mean is .*: give a list of numbers, one for each channel"):
        built(ModelForm, {"mean": mean, "std": [1.0]})


def test_an_audit_in_python_takes_the_form_of_the_model() -> None:
    class Bytes(nn.Module):
        """Images (B, H, W, C) from 0 to 255."""

        def __init__(self) -> None:
            super().__init__()
            self.net = find_case("plain-digits").load()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(x.permute(0, 3, 1, 2) / 255)
            return logits

    form = ModelForm(channels_last=True, pixel_max=255)
    report, usual = (
        audit(model, "digits", Linf(0.15), n=16, budget="quick", form=form)
        for model, form in ((Bytes().eval(), form), (find_case("plain-digits").load(), ModelForm()))
    )
    assert report.accuracy == usual.accuracy
    assert "form=unmask.ModelForm(channels_last=True, pixel_max=255)" in report.script


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"pixel_max": 255}, "form is a dict: give unmask.ModelForm"),
        (ModelForm(checkpoint="net.pt"), "--checkpoint is for"),
    ],
)
def test_a_form_that_says_nothing_of_a_model_in_memory_is_refused(form: Any, message: str) -> None:
    with pytest.raises(UnmaskError, match=message):
        audit(nn.Flatten(), "digits", Linf(0.1), n=4, form=form)


@pytest.mark.parametrize("white", [0, -1, float("nan"), "255"])
def test_white_is_a_positive_number(white: Any) -> None:
    with pytest.raises(UnmaskError, match="pixel_max is"):
        ModelForm(pixel_max=white)


def test_required_options_are_required(capsys: pytest.CaptureFixture[str]) -> None:
    for given, lacking in ((("--data", "digits"), "--eps"), (("--eps", "0.1"), "--data")):
        assert unmask("audit", "torch.nn:Flatten", *given) == 2
        assert f"Missing option '{lacking}'" in capsys.readouterr().err


def test_a_case_has_images_and_a_ball_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["attack", "case:plain-digits", "--steps", "2", "--n", "4", "--out", str(tmp_path)]
    assert unmask(*command) == 0
    asked = json.loads((tmp_path / "run.json").read_text())["config"]
    assert (asked["data"], asked["threat"]) == ("digits", {"norm": "linf", "eps": 0.15, "unit": "raw"})
    assert unmask(*command, "--norm", "l2") == 2
    assert "a norm or a unit of your own needs a size of your own" in capsys.readouterr().err
