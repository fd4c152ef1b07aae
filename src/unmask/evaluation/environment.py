"""What a run was made with: versions, hardware, revision."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["environment"]


def environment() -> dict[str, Any]:
    """Versions, hardware, git revision of the code, and the time, as plain data."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("unmask", "torch", "numpy")},
        },
        "hardware": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "revision": _revision(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _revision() -> str | None:
    """The commit of the checkout that the package runs from, if it runs from one."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
