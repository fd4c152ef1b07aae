"""The command line in this process."""

from __future__ import annotations

import sys

import pytest

from unmask.cli import main

__all__ = ["unmask"]


def unmask(*arguments: str) -> int:
    """``unmask`` with these arguments; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["unmask", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    assert isinstance(end.value.code, int)
    return end.value.code
