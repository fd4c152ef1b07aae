"""Make .venv and install unmask into it in editable form, with the extras named as arguments.

A torch >= 2.4 that the running interpreter already has is kept, since it may be built for its GPU: links show
it to .venv, and no other package of that interpreter. Otherwise the tested version is installed, as pip finds
it. TORCH_INDEX names a further index to ask for it, such as that of PyTorch's CPU builds.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"
LIBRARIES = "torch torch-*-info torchgen functorch *triton* cuda cuda_* nvidia nvidia_*".split()
"""What a build of torch consists of, for any GPU or none. What else it requires, pip installs."""


def outer() -> Path | None:
    """The folder in which the running interpreter has a torch >= 2.4 that can be imported, or None."""
    try:
        import torch
    except Exception:  # absent or broken: either way a new one is needed
        return None
    folder = Path(torch.__file__).parents[1]
    new = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 4)
    return folder if new and any(folder.glob("torch-*-info")) else None  # without which pip would not know it


def create() -> None:
    """Make the environment, which sees the torch that is kept, if any."""
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(f"{sys.executable} cannot make environments with pip: on Debian and Ubuntu, apt install python3-venv")
    folder = outer()
    venv.create(VENV, with_pip=True, clear=True, symlinks=True)
    if folder is not None:
        show(folder, VENV)


def show(folder: Path, environment: Path) -> None:
    """Let an environment import the torch of a folder, with the libraries that it loads and nothing else."""
    kept = environment / "kept"
    kept.mkdir()
    for path in (path for pattern in LIBRARIES for path in folder.glob(pattern)):
        (kept / path.name).symlink_to(path)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "kept.pth").write_text("../../../kept\n")


def own_constraints() -> Path:
    """The constraints with the torch that is kept, and without those on torchvision and on what torch requires."""
    torch = metadata.distribution("torch")
    free = {_name(line) for line in ["torch", "torchvision", *(torch.requires or [])]}
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if _name(line) not in free]
    path = VENV / "constraints.txt"
    path.write_text("\n".join([*lines, f"torch=={torch.version}", ""]))
    return path


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def further_index() -> list[str]:
    """Pip's option for the index that the user names."""
    url = os.environ.get("TORCH_INDEX")
    return ["--extra-index-url", url] if url else []


def install(constraints: Path, *what: str) -> None:
    """Run pip; where it fails, its own words are enough."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-user", "--disable-pip-version-check"]
    if code := subprocess.run([*pip, "-c", str(constraints), *what], cwd=ROOT).returncode:
        sys.exit(code)


def main() -> None:
    """Make the environment if there is none; its own interpreter then installs into it."""
    if Path(sys.prefix) != VENV:
        if not (VENV / "bin/pip").exists():
            create()
        sys.exit(subprocess.run([str(VENV / "bin/python"), __file__, *sys.argv[1:]]).returncode)
    target = f".[{','.join(sys.argv[1:])}]" if sys.argv[1:] else "."
    if (kept := VENV / "kept/torch").exists():
        folder = kept.resolve().parent
        print(f"Installing unmask into .venv; torch {metadata.version('torch')} of {folder} is kept.", flush=True)
        install(own_constraints(), "-e", target)
    else:
        print("Installing unmask into .venv with the versions of constraints.txt: a minute or two.", flush=True)
        install(CONSTRAINTS, *further_index(), "torch")
        install(CONSTRAINTS, "-e", target)


if __name__ == "__main__":
    main()
