"""Chromium and the accessibility checker axe-core, where the machine has them, and options for quiet pages."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

__all__ = ["AXE", "BROWSER", "QUIET"]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def _axe() -> Path | None:
    """The script of axe-core: UNMASK_AXE names a newer one than that of the package axe-core-python."""
    if named := os.environ.get("UNMASK_AXE"):
        return Path(named)
    package = importlib.util.find_spec("axe_core_python")
    return Path(package.origin).with_name("axe.min.js") if package and package.origin else None


AXE = _axe()
