"""How the program ends: exit codes, and one line for whatever went wrong."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Any, NoReturn

import typer

from unmask.cli.console import fail, flushed, make_streams_ready
from unmask.cli.fetching import app
from unmask.errors import UnmaskError, first_line
from unmask.evaluation.failures import alive, by_the_user
from unmask.models.allocator import keep_freed_memory

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line; exit codes: 0 done, 1 check failed, 2 bad input, 3 a bug, 130 interrupted."""
    keep_freed_memory()
    make_streams_ready()
    with alive():
        code = _code()
    lost = flushed()
    sys.exit(fail(_fault(lost)) if lost is not None and code == 0 else code)


def _code() -> int:
    """What the command came to; with ``--debug`` the traceback of an error comes before its line."""
    debug = False
    try:
        with typer.main.get_command(app).make_context("unmask", sys.argv[1:] or ["--help"]) as context:
            debug = context.params["debug"]
            context.command.invoke(context)
        return 0
    except typer.Exit as end:
        return int(end.exit_code)
    except SystemExit as end:  # commands end by typer.Exit
        return fail(f"the code of the model ended the process ({end.code!r}): it must return an answer")
    except BrokenPipeError:  # the reader of the output has closed it
        return 0
    except (OSError, UnmaskError) as error:
        if debug:
            traceback.print_exc()
        return fail(_fault(error) if isinstance(error, OSError) else str(error))
    except Exception as error:
        usage: Any = error
        if not hasattr(error, "format_message"):  # of whichever click typer brings
            if debug:
                traceback.print_exc()
            what = f"internal error: {type(error).__name__}: {first_line(error)}"
            return fail(f"{what}; please report it with the output of the same command under --debug", 3)
        command = usage.ctx.command_path if usage.ctx else "unmask"
        return fail(f"{usage.format_message().rstrip('.')}; see `{command} --help`")
    except BaseException as error:
        if by_the_user(error):
            return fail("interrupted; the same command continues the run", 130)
        return fail(f"the code of the model raises {type(error).__name__}: {first_line(error)}")


def _fault(error: OSError) -> str:
    """What the system refused, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error.strerror}: free space, then the same command continues the run"
    return f"{error.filename or 'the system'}: {error.strerror or error}: fix this and run the same command again"
