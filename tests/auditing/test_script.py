"""The script of a report, executed as a reader would: it prints the accuracy of the run, to the digit."""

from __future__ import annotations

import ast
import contextlib
import html
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unmask
from tests.commands import unmask as command
from tests.models import MEANS
from unmask.attacking import run_attack
from unmask.attacks.aliases import pgd
from unmask.attacks.combined.with_view import WithView
from unmask.attacks.source import source
from unmask.auditing.attacks.attackers import attackers
from unmask.auditing.attacks.conditions import Conditions
from unmask.auditing.budgets import BUDGETS, budget_of
from unmask.auditing.jobs import attack_code
from unmask.auditing.probe_data import Images
from unmask.auditing.request import AuditRequest
from unmask.auditing.views.candidate_view import OWN_GRADIENT, CandidateView, call_source
from unmask.auditing.views.pilot_result import PilotResult
from unmask.cases import AttackSpec
from unmask.data import Dataset, load
from unmask.evaluation.models.targets import Target
from unmask.gradients.bpda import bpda
from unmask.gradients.straight_through import straight_through
from unmask.gradients.surrogates.fit_surrogate import fit_surrogate
from unmask.records import ThreatSpec
from unmask.report.run_folder import CaseInfo, RunFolder
from unmask.report.script import script
from unmask.threats import L2, Linf

MODELS = f"""{MEANS}
class Rounded(nn.Module):
    def __init__(self, noise=0.0):
        super().__init__()
        self.net, self.noise = Means(), noise

    def forward(self, x):
        return self.net(torch.round((x + self.noise * torch.randn_like(x)) * 16) / 16)

rounded = lambda: Rounded().eval()
noisy = lambda: Rounded(0.05).eval()
means = lambda: Means().eval()

net = functools.cache(Means)

@torch.no_grad()
def ask(x):
    return net()(torch.from_numpy(x)).numpy()

scores = lambda: ask
labels = lambda: lambda x: np.eye(10)[ask(x).argmax(1)]
refusing = lambda: Refusing().eval()

class Refusing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Means()

    def forward(self, x):
        return torch.cat((self.net(x / 255), x.flatten(1).amax(1, keepdim=True) / 255 - 10), 1)
""".replace("import torch\n", "import functools\nimport numpy as np\nimport torch\n", 1)


def audited(folder: Path, *options: str) -> dict[str, Any]:
    """The report of an audit in that folder of its ``models.py``."""
    (folder / "models.py").write_text(MODELS)
    assert command("audit", *options, "--data", "digits", "--out", "run") == 0
    report: dict[str, Any] = json.loads(Path("run/report.json").read_text())
    return report


def pasted(page: Path) -> str:
    """What a reader copies from the page."""
    (found,) = re.findall(r"<pre class=\"script\"[^>]*>(# The audit.*?)</pre>", page.read_text(), re.DOTALL)
    return html.unescape(found)


def executed(code: str, folder: Path, fresh: bool = False) -> dict[str, float]:
    """What the script prints, in this process or in a fresh one: name of an attack -> robust accuracy."""
    if fresh:
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = done.stdout
    else:
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, "script", "exec"), {"__name__": "__main__"})
        said = out.getvalue()
    lines = [line.removeprefix("robust accuracy under ").split(": ") for line in said.splitlines()]
    return {name: float(value) for name, value in lines}


@pytest.mark.parametrize(
    ("model", "names", "options"),
    [
        ("rounded", {"plain", "adaptive"}, ["--eps", "0.05", "--n", "20", "--seed", "3"]),
        ("noisy", {"adaptive"}, ["--eps", "0.05", "--n", "4"]),
        ("scores", {"black-box", "nes"}, ["--eps", "0.1", "--n", "4"]),
        ("labels", {"black-box", "labels"}, ["--eps", "0.1", "--n", "4"]),
    ],
)
def test_a_pasted_script_prints_the_figure_of_the_run(
    model: str, names: set[str], options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = audited(tmp_path, f"models.py:{model}", *options, "--budget", "quick")
    code = pasted(Path("run/report.html"))
    assert code == report["script"]
    figures = {attack["name"]: attack["accuracy"] for attack in report["attacks"]}
    assert executed(code, tmp_path, fresh=model in ("rounded", "noisy")) == {name: figures[name] for name in names}
    if model == "rounded":
        assert command("verify", "run") == 0


def test_the_command_in_a_script_is_that_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--eps", "0.02", "--eps-unit", "rms", "--norm", "l2", "--n", "300", "--seed", "3", "--range", "255"]
    options += ["--reject-class", "10", "--budget", "quick", "--stop-when", "upper<0.97"]
    report = audited(tmp_path, "models.py:refusing", *options)
    assert "data.batch(0, 128)" in report["script"], "where the rule was met"
    (line,) = (line for line in report["script"].splitlines() if line.startswith("#   "))
    _, *arguments = shlex.split(line.removeprefix("#"))
    assert command(*arguments) == 0
    before, after = (json.loads(Path(run, "run.json").read_text()) for run in ("run", "runs/again"))
    assert before["config"] == after["config"]
    figures = {attack["name"]: attack["accuracy"] for attack in report["attacks"]}
    assert executed(report["script"], tmp_path) == {name: figures[name] for name in ("plain", "adaptive")}


def test_model_and_data_of_an_audit_from_python_have_to_be_put_in(tmp_path: Path) -> None:
    """The model was left in training mode, which an audit and the script both undo."""
    (tmp_path / "models.py").write_text(MODELS)
    names: dict[str, Any] = {}
    exec(MODELS, names)
    whole = load("digits", n=40)
    data = Dataset("mine", whole.images[20:], whole.labels[20:], whole.classes, "", whole.scale)
    report = unmask.audit(names["Means"]().train(), data, Linf(0.05), n=20, budget="quick")
    assert 'unmask.audit(given, data, threat, n=20, seed=0, budget="quick")' in report.script
    assert [line for line in report.script.splitlines() if "PUT HERE" in line] == [
        "data = ...  # PUT HERE the data mine that unmask.audit got, as an unmask.data.Dataset",
        "given = ...  # PUT HERE the model Means that was given to unmask.audit",
    ]
    code = report.script.replace("given = ...", "import models; given = models.Means().train()")
    made = "Dataset('mine', whole.images[20:], whole.labels[20:], whole.classes, '', 16)"
    code = code.replace("data = ...", f"from unmask.data import Dataset; whole = load('digits', n=40); data = {made}")
    figures = {attack.name: attack.accuracy for attack in report.attacks}
    assert executed(code, tmp_path, fresh=True) == {name: figures[name] for name in ("plain", "adaptive")}


def test_a_budget_of_seconds_is_said_to_depend_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = audited(tmp_path, "models.py:means", "--eps", "0.05", "--n", "8", "--budget", "0.05s")
    assert "depends on the machine" in report["script"]
    assert "unmask.TimeLimited(0.05, unmask.Doubling(unmask.Ensemble((" in report["script"]
    assert executed(report["script"], tmp_path).keys() == {"plain", "adaptive"}


ENCODED = """
import torch
from torch import nn
from unmask.cases import find_case

class Levels(nn.Module):  # two channels for one, so that the identity is no surrogate
    def forward(self, x):
        return (torch.cat((x, 1 - x), 1) * 4).round() / 4

class Encoded(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.net = Levels(), find_case("madry-digits").load()

    def forward(self, x):
        code = self.encode(x)
        return self.net((code[:, :1] + 1 - code[:, 1:]) / 2)

made = lambda: Encoded().eval()
"""


def test_surrogates_are_fitted_again_on_the_same_images(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(ENCODED)
    names: dict[str, Any] = {}
    exec(ENCODED, names)
    model, data = names["made"](), load("digits", n=20)
    right = torch.tensor([i for i in range(20) if i not in (3, 7)])
    x, y = data.floats(right)
    fitted = bpda("encode", fit_surrogate(model, "encode", x))
    step = CandidateView(('bpda("encode", unmask.fit_surrogate(model, "encode", x))',), fitted)
    both = step.then(CandidateView(("straight_through",), straight_through))
    views = [step, both, OWN_GRADIENT]
    assert step.view is not None
    assert both.view is not None
    attack = unmask.Ensemble((WithView(step.view, pgd(9)), WithView(both.view, pgd(9)), pgd(9)))
    request = AuditRequest("models.py:Encoded", Target(model), data, Linf(0.2), 20, seed=5)
    code = attack_code(request, {"adaptive": AttackSpec("", lambda _: attack)}, views, Images(x, y, right))
    assert code["misclassified"] == [3, 7]
    case = CaseInfo("a", "", "digits", (), ThreatSpec("linf", 0.2), None, None, "", False, (), {}, n=20)
    text = script(*told(case, code, target="models.py:made", seed=5))
    found = run_attack(attack, model, *data.batch(), Linf(0.2), seed=5)
    assert 0.05 < found.accuracy.value < 0.95
    assert executed(text, tmp_path) == {"adaptive": found.accuracy.value}


def told(case: CaseInfo, code: Any, **config: Any) -> tuple[RunFolder, CaseInfo]:
    """A run folder and its audited case, as :func:`script` takes them."""
    threat = {"norm": case.threat.norm, "eps": case.threat.eps, "unit": case.threat.unit}
    config = {"target": case.case, "data": case.data, "n": 20, "seed": 0, "threat": threat, "options": {}, **config}
    case = CaseInfo(**{**vars(case), "audit": {"code": code}})
    return RunFolder(Path(), {"config": config}, (case,), ()), case


def test_names_from_files_are_no_code() -> None:
    evil = 'x"); import os; ("\n\\'
    (quoted,) = [node for node in ast.walk(ast.parse(call_source("bpda", evil))) if isinstance(node, ast.Constant)]
    assert quoted.value == evil
    request = AuditRequest(evil, Target(nn.Flatten()), load("digits", n=20), Linf(0.1), 20)
    view = CandidateView((call_source("bypass", evil),), bpda(evil))
    code = attack_code(request, {}, [view], Images(*request.data.batch(), torch.arange(20)))
    case = CaseInfo("a\nimport os", "", evil, (), ThreatSpec("linf", 0.1), None, None, "", False, (), {}, n=20)
    for more in ({}, {"made_by": "unmask.audit", "data_in_memory": True}, {"target": evil, "weights": evil}):
        imports = [node for node in ast.walk(ast.parse(script(*told(case, code, **more)))) if _imports(node)]
        assert [ast.unparse(node) for node in imports] == [
            "import torch",
            "import unmask",
            "from unmask.data import load",
        ]


def _imports(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("threat", [Linf(0.1), L2(1.0), unmask.L1(5.0)], ids=lambda threat: str(threat.norm))
@pytest.mark.parametrize("budget", [*BUDGETS, "2s"])
def test_the_code_of_an_attack_makes_an_equal_attack(budget: str, threat: Any, random: bool) -> None:
    named = CandidateView(("straight_through",), straight_through)
    results = [
        PilotResult(named, 0.5, 0.0, 0.3, per_draw_passes=True, levels=16),
        PilotResult(OWN_GRADIENT, 0.6, 0.0, 0.2),
        PilotResult(named, 0.7, 0.0, 1.0),
    ]
    made = attackers(Conditions(results, 10, budget_of(budget), threat.norm, random), [], [])
    for name in ("plain", "adaptive", "black-box"):
        attack = made[name].make(nn.Flatten())
        code = source(attack, {straight_through: "given"})
        assert eval(code, {"unmask": unmask, "given": straight_through}) == attack


def test_a_view_without_a_name_is_no_code() -> None:
    with pytest.raises(ValueError, match="no code makes"):
        source(WithView(bpda("0"), pgd(3)), {})
