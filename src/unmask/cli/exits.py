"""How the program ends: exit codes, and one line for whatever went wrong."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, NoReturn

import typer

from unmask.allocator import keep_freed_memory
from unmask.cli.console import fail
from unmask.cli.fetching import app

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line; exit codes: 0 done, 1 check failed, 2 bad input, 130 interrupted."""
    keep_freed_memory()
    try:
        with typer.main.get_command(app).make_context("unmask", sys.argv[1:] or ["--help"]) as context:
            context.command.invoke(context)
        sys.stdout.flush()
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    except KeyboardInterrupt:
        code = fail("interrupted; the same command again continues", 130)
    except SystemExit as end:  # commands end by typer.Exit
        code = fail(f"the code of the model ended the process (sys.exit({end.code!r})): it must return an answer")
    except BrokenPipeError:  # whoever read the output has read enough
        code = _muted(0)
    except OSError as error:
        code = _muted(fail(_fault(error)))
    except ValueError as error:
        code = fail(str(error))
    except Exception as error:
        usage: Any = error
        if not hasattr(error, "format_message"):  # of whichever click typer brings
            raise
        command = usage.ctx.command_path if usage.ctx else "unmask"
        code = fail(f"{usage.format_message().rstrip('.')}; see `{command} --help`")
    sys.exit(code)


def _fault(error: OSError) -> str:
    """What the system refused, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error.strerror}: make room, then the same command again continues"
    return f"{error.filename or 'the system'}: {error.strerror or error}: fix this and run the same command again"


def _muted(code: int) -> int:
    """Python flushes stdout at exit, and must not fail there once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
