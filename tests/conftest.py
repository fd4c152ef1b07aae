"""What all tests share; and two options by which `make test-all` runs what `make test` had to skip.

``--record-skips`` keeps the names of the tests that are skipped. ``--only-skipped`` runs those alone (all, where none
were kept), and fails if one of them is skipped again for a reason that is not in ``ACCEPTED``.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # what is not on this machine is not downloaded for a test

ACCEPTED = {"no GPU": "a CPU machine has none"}
"""Reasons for which a test may be skipped where every library, program and data set is installed, and why."""

_KEPT = "unmask/skipped"
_skipped: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _no_lines_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command prints while it works depends on how fast the machine is."""
    monkeypatch.setattr("unmask.cli.progress._FIRST", 3600.0)
    monkeypatch.setattr("unmask.cli.progress._EVERY", 3600.0)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    parser.addoption("--record-skips", action="store_true", help="keep the names of the tests that are skipped")
    parser.addoption("--only-skipped", action="store_true", help="run what was skipped; a new skip is a failure")


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped[report.nodeid] = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)


pytest_runtest_logreport = pytest_collectreport = _note


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what was skipped, by its name or that of its file, where the file was skipped as a whole."""
    kept = config.cache.get(_KEPT, []) if hasattr(config, "cache") and config.getoption("only_skipped") else []
    if kept:
        chosen = [item for item in items if not {item.nodeid, item.nodeid.split("::")[0]}.isdisjoint(kept)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep what was skipped, or fail for it; xdist's workers leave that to their controller."""
    config: Any = session.config
    if hasattr(config, "workerinput"):
        return
    if config.getoption("record_skips"):
        config.cache.set(_KEPT, sorted(_skipped))
    if config.getoption("only_skipped") and _unaccepted() and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which skips are failures."""
    if config.getoption("only_skipped"):
        for name, reason in _unaccepted().items():
            terminalreporter.write_line(f"SKIPPED, and not for an accepted reason: {name}: {reason}", red=True)


def _unaccepted() -> dict[str, str]:
    return {name: reason for name, reason in _skipped.items() if not any(accepted in reason for accepted in ACCEPTED)}
