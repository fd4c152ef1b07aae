"""The command line: arguments in, exit codes out. Everything else is done elsewhere."""

from unmask.cli.commands import app
from unmask.cli.main import main

__all__ = ["app", "main"]
