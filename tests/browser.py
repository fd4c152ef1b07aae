"""Chromium, where the machine has it, and the options with which it shows a page and nothing else."""

from __future__ import annotations

import shutil

__all__ = ["BROWSER", "QUIET"]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
