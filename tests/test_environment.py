"""`make` keeps the torch of the interpreter that it runs, and nothing else of it."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools import environment

FOREIGN = (
    "numpy pandas pytest_benchmark torchvision torchvision-0.20.dist-info torch_geometric sitecustomize.py".split()
)
OF_TORCH = "torch torch-2.9.0+rocm.dist-info torchgen pytorch_triton_rocm nvidia nvidia_cudnn-9.dist-info cuda".split()


@pytest.fixture
def outer(tmp_path: Path) -> Path:
    """The packages of another interpreter."""
    folder = tmp_path / "an other/site-packages"
    for name in [*OF_TORCH, *FOREIGN]:
        (folder / name).mkdir(parents=True)
    (folder / "torch/__init__.py").write_text("__version__ = '2.9.0+rocm'")
    (folder / "torch-2.9.0+rocm.dist-info/METADATA").write_text("Name: torch\nVersion: 2.9.0+rocm\n")
    (folder / "pandas/__init__.py").write_text("raise ValueError('numpy.dtype size changed')")
    return folder


def test_only_torch_is_shown(outer: Path, tmp_path: Path) -> None:
    made = tmp_path / "the new/.venv"
    venv.create(made, symlinks=True)
    environment.show(outer, made)
    assert sorted(path.name for path in (made / "kept").iterdir()) == sorted(OF_TORCH)
    code = (
        "import importlib.metadata, importlib.util, torch\n"
        "print(torch.__version__, importlib.metadata.version('torch'), importlib.util.find_spec('pandas'))"
    )
    run = subprocess.run([made / "bin/python", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["2.9.0+rocm", "2.9.0+rocm", "None"]


@pytest.mark.parametrize(
    ("version", "metadata", "kept"),
    [
        ("2.4.0", "torch-2.4.0.dist-info", True),
        ("2.10.0a0+git.nv25.1", "torch-2.10.0a0+git.nv25.1.dist-info", True),
        ("2.6.0", "torch-2.6.0.egg-info", True),
        ("2.3.1", "torch-2.3.1.dist-info", False),
        ("2.9.0", "torchvision-0.24.0.dist-info", False),  # pip would not know this torch, and fetch another
    ],
)
def test_which_torch_is_kept(
    version: str, metadata: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / metadata).mkdir()
    found = SimpleNamespace(__file__=str(tmp_path / "torch/__init__.py"), __version__=version)
    monkeypatch.setitem(sys.modules, "torch", found)
    assert environment.outer() == (tmp_path if kept else None)


def test_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert environment.outer() is None


def test_a_python_that_cannot_make_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match=r"apt install python3-venv$"):
        environment.create()
    assert not (tmp_path / ".venv").exists()


def test_only_the_plugins_of_the_project_are_loaded(tmp_path: Path) -> None:
    """Whatever plugins are installed beside the tests', in the process that reports and in one that tests."""
    plugin = tmp_path / "site/foreign.py"
    (tmp_path / "site/foreign-1.dist-info").mkdir(parents=True)
    plugin.write_text("raise SystemError('a foreign plugin is loaded')")
    (tmp_path / "site/foreign-1.dist-info/METADATA").write_text("Name: foreign\nVersion: 1\n")
    (tmp_path / "site/foreign-1.dist-info/entry_points.txt").write_text("[pytest11]\nforeign = foreign\n")
    test = tmp_path / "test_own.py"
    test.write_text("import pytest\ndef test_own(): pytest.skip('for lack of data')")
    root = Path(environment.__file__).parents[1]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n1",
        "-c",
        f"{root}/pyproject.toml",
        "--rootdir",
        str(tmp_path),
        str(test),
    ]
    run = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(plugin.parent)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "SKIPPED [1] test_own.py:2: for lack of data" in run.stdout
    assert "foreign" not in run.stdout + run.stderr
