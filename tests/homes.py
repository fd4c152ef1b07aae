"""Data sets that a machine may hold: published images, which do not come with the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unmask.data import DataError, default_home, load

_BESIDE = Path(__file__).resolve().parents[2] / "shared"


def home_with(name: str, split: str = "test") -> Path:
    """A home that holds a data set, ``$UNMASK_HOME`` or one beside the checkout; without one, the test is skipped."""
    try:
        home = default_home() if os.environ.get("UNMASK_HOME") or not _BESIDE.is_dir() else _BESIDE
        load(name, split, n=1, home=home)
    except DataError as error:
        pytest.skip(str(error))
    return home
