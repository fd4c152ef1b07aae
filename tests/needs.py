"""Published data sets, which do not come with the project: a test that needs one says so."""

from __future__ import annotations

import pytest

from unmask.data import DataError, load

__all__ = ["need"]


def need(name: str, split: str = "test") -> None:
    """Skip the test if the data set cannot be loaded, saying why."""
    try:
        load(name, split, n=1)
    except DataError as error:
        pytest.skip(str(error))
