"""Make .venv and install unmask into it in editable form, with the extras named as arguments.

A torch >= 2.4 that the running interpreter already has is kept, since it may be built for its GPU;
otherwise the tested version is installed, as pip finds it. TORCH_INDEX
names a further index to ask for it, such as that of PyTorch's CPU builds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"


def has_torch() -> bool:
    """Whether the running interpreter can import torch >= 2.4."""
    try:
        import torch
    except Exception:  # absent or broken: either way a new one is needed
        return False
    return tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 4)


def create() -> None:
    """Make the environment; with a torch to keep, it sees the packages of the running interpreter."""
    keep = has_torch()
    venv.create(VENV, with_pip=True, clear=True, system_site_packages=keep)
    if keep and sys.prefix != sys.base_prefix:  # itself a virtual environment, which venv looks through
        here = Path(sysconfig.get_path("purelib", vars={"base": str(VENV), "platbase": str(VENV)}))
        (here / "base.pth").write_text(sysconfig.get_path("purelib") + "\n")


def own_constraints() -> Path:
    """The constraints with the torch that is kept, and without those on what torch itself requires."""
    torch = metadata.distribution("torch")
    free = {_name(line) for line in ["torch", *(torch.requires or [])]}
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
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if code := subprocess.run([*pip, "-c", str(constraints), *what], cwd=ROOT).returncode:
        sys.exit(code)


def main() -> None:
    """Make the environment if there is none; its own interpreter then installs into it."""
    if Path(sys.prefix) != VENV:
        if not (VENV / "bin/pip").exists():
            create()
        sys.exit(subprocess.run([str(VENV / "bin/python"), __file__, *sys.argv[1:]]).returncode)
    target = f".[{','.join(sys.argv[1:])}]" if sys.argv[1:] else "."
    if "include-system-site-packages = true" in (VENV / "pyvenv.cfg").read_text():
        torch = metadata.distribution("torch")
        print(f"Installing unmask into .venv; torch {torch.version} of {torch.locate_file('')} is kept.", flush=True)
        install(own_constraints(), "-e", target)
    else:
        print("Installing unmask into .venv with the versions of constraints.txt: a minute or two.", flush=True)
        install(CONSTRAINTS, *further_index(), "torch")
        install(CONSTRAINTS, "-e", target)


if __name__ == "__main__":
    main()
