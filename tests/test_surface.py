"""The names of the package: what is public, where it lies, and that type checkers see it as it is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import unmask

ROOT = Path(__file__).parents[1]
STUB = ast.parse(Path(unmask.__file__ + "i").read_text(encoding="utf-8"))
HOMES = {
    alias.name: f"unmask.{node.module}"
    for node in STUB.body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}
"""Of each public name the module that it lies in."""


def test_the_stub_exports_what_it_imports() -> None:
    (exported,) = (node.value for node in STUB.body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(exported)) == sorted(["__version__", "data", *HOMES])
    assert sorted(unmask.__all__) == sorted(["data", *HOMES])


def test_data_sets_need_no_import_of_their_own() -> None:
    x, y = unmask.data.load("digits", "train", n=2).batch()
    assert (x.shape, len(y)) == ((2, 1, 8, 8), 2)


@pytest.mark.parametrize("name", HOMES)
def test_every_public_name_is_there_and_is_public_in_its_module(name: str) -> None:
    value, home = getattr(unmask, name), import_module(HOMES[name])
    assert value is getattr(home, name)
    assert name in home.__all__
    assert value.__doc__


@pytest.mark.parametrize("name", ["only", "submodule_only", "identity", "latent", "nothing"])
def test_other_names_are_not(name: str) -> None:
    with pytest.raises(AttributeError, match=f"No unmask attribute {name}"):
        getattr(unmask, name)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, unmask; unmask.AuditReport; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


RIGHT = """\
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
import unmask
from unmask import APGD, Linf

model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)
report = unmask.audit(model, "digits", Linf(8 / 255), n=16, budget="quick", out="runs/audit")
unmask.audit(model, (x, y.numpy()), Linf(8 / 255), n=4)
unmask.audit(model, DataLoader(TensorDataset(x, y)), Linf(8 / 255))
unmask.audit(model, TensorDataset(x, y), Linf(8 / 255))
left: float = report.accuracy.adaptive.value
remedies: list[str] = [finding.remedy for finding in report.findings]
attack = unmask.Ensemble((APGD(20), unmask.pgd(steps=3, estimator=unmask.EOT(4))))
result = unmask.run_attack(attack, model, x, y, Linf(0.1), view=unmask.bpda("0"))
n: int = result.accuracy.n


def search(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return x


x_adv = unmask.run_attack(unmask.external_attack(search), model, x, y, judge=unmask.Judge(model, Linf(0.1))).x_adv
flags: Tensor = unmask.judge(model, Linf(0.1), x, y, x_adv, draws=2).robust
"""

WRONG = """\
import torch
from torch import nn
import unmask

model, x = nn.Flatten(), torch.rand(4, 1, 8, 8)
unmask.pgd(stpes=3)  # call-arg
unmask.pgd(steps="3")  # arg-type
unmask.run_attack(model, unmask.pgd(), x, x, unmask.Linf(0.1))  # arg-type
unmask.run_attack(unmask.pgd(), model, x, x, 0.1)  # arg-type
unmask.audit(model, "digits", unmask.Linf(0.1)).clean_accuracy  # attr-defined
unmask.audit(model, "digits", unmask.Linf(0.1))["accuracy"]  # index
unmask.Square(1000).anything  # attr-defined
unmask.nothing  # attr-defined
unmask.identity  # attr-defined
"""


def test_a_type_checker_accepts_the_right_program_and_names_each_mistake_of_the_wrong_one(tmp_path: Path) -> None:
    for name, text in (("right.py", RIGHT), ("wrong.py", WRONG)):
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "mypy", "--no-pretty", "--hide-error-context", "--no-error-summary"]
    files = [str(tmp_path / name) for name in ("right.py", "wrong.py")]
    done = subprocess.run(
        [*command, *files], cwd=ROOT, capture_output=True, text=True
    )  # the cache is that of `make check`
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(r"^.*?(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    lines = enumerate(WRONG.splitlines(), start=1)
    wanted = {("wrong.py", str(number), line.split("# ")[1]) for number, line in lines if "# " in line}
    assert set(found) == wanted, done.stdout
