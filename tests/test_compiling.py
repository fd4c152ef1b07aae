"""The switch for ``torch.compile``: what is optimised changes, what is judged does not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.commands import unmask
from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.judging import Judge
from unmask.models.compiling import Compiler
from unmask.threats import Linf

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own affairs
COMPILER = shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(
    not COMPILER or " " in sys.prefix, reason="no C++ compiler, or a path with spaces, which torch.compile cannot use"
)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x)
        return answer


@needs_compiler
def test_a_compiled_view_finds_as_much_and_the_original_judges_it() -> None:
    model, said = Small().eval(), list[str]()
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    judged: list[int] = []

    def original(x: Tensor) -> Tensor:
        judged.append(len(x))
        assert not torch.compiler.is_compiling()
        answer: Tensor = model(x)
        return answer

    judge, compiler = Judge(original, Linf(0.05)), Compiler(said.append)
    own = run_attack(pgd(10), model, x, y, judge=judge)
    before = len(judged)
    fast = run_attack(pgd(10), model, x, y, judge=judge, compiler=compiler)
    assert not said
    assert len(judged) > before
    assert 0 < own.verdict.robust_fraction.mean() < 1
    assert (own.verdict.robust_fraction - fast.verdict.robust_fraction).abs().mean() <= 0.1
    with torch.no_grad():
        assert torch.equal(fast.verdict.predicted[0], model(fast.x_adv).argmax(1))
    assert fast.verdict.feasible.all()


def different(view: Callable[..., Any], **_: object) -> Callable[..., Any]:
    return lambda x: 2 * view(x)


def none(view: Callable[..., Any], **_: object) -> Callable[..., Any]:
    def call(x: Tensor) -> Tensor:
        raise RuntimeError("no compiler\nfound")

    return call


@pytest.mark.parametrize(
    ("way", "why"), [(different, "the compiled logits differs"), (none, "RuntimeError: no compiler")]
)
def test_what_cannot_be_compiled_goes_on_as_it_is(monkeypatch: pytest.MonkeyPatch, way: Any, why: str) -> None:
    monkeypatch.setattr(torch, "compile", way)
    said = list[str]()
    model, x = nn.Flatten(), torch.rand(16, 1, 2, 2)
    compiler = Compiler(said.append)
    for _ in range(2):
        view = compiler.of(model, None, lambda: model, random=False)
        assert torch.equal(view(x).logits, x.flatten(1))  # type: ignore[union-attr]
    assert said == [f"not compiled: {why}"]


def test_random_models_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", none)
    said = list[str]()
    model = nn.Flatten()
    assert Compiler(said.append).of(model, None, lambda: model, random=True) is model
    assert said == ["a random model is not compiled"]


def test_a_run_says_so_and_does_not_go_on_without(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", none)  # seconds less; the switch is the same
    command = ["attack", "case:plain-digits", "--data", "digits", "--eps", "0.1", "--steps", "2", "--n", "4"]
    command += ["--out", str(tmp_path / "run")]
    assert unmask(*command, "--compile") == 0
    assert "not compiled: RuntimeError: no compiler" in capsys.readouterr().err
    assert '"compile": true' in (tmp_path / "run" / "run.json").read_text()
    assert unmask(*command) == 2
    assert "compile True, now None" in capsys.readouterr().err
    assert unmask(*command, "--compile") == 0
