"""What ``verify`` and ``rerun`` have in common: the configuration of a run, as arguments of the commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.cli import commands

if TYPE_CHECKING:
    from unmask.evaluation.plan import Plan
    from unmask.evaluation.runner import LocalExecutor
    from unmask.forms import ModelForm

__all__ = ["clocked", "do_again", "local_of", "on_the_threads_of", "planned"]

# Each function imports what it needs, so that help does not wait for torch.


def planned(asked: Mapping[str, Any], local: LocalExecutor) -> list[Plan]:
    """The plan that follows from a configuration today; ValueError if there is none."""
    from unmask.auditing.question import plans

    with _told():
        return plans(asked, local)


def local_of(asked: Mapping[str, Any], batch: int, device: str, weights: Path | None) -> LocalExecutor:
    """The executor of a run with this configuration."""
    from unmask.compiling import Compiler
    from unmask.evaluation.runner import LocalExecutor

    _refuse_python(asked)
    with _told():
        strict = asked.get("command") != "audit"  # an audit makes models ready that the others refuse or take as is
        compiler = Compiler() if asked.get("compile") else None
        return LocalExecutor(batch, device, weights or _weights(asked), strict, _form(asked), compiler)


def do_again(asked: Mapping[str, Any], out: Path, shared: Mapping[str, Any]) -> None:
    """Run a configuration again in a new folder, by its own command."""
    _refuse_python(asked)
    with _told():
        settings = {"n": asked["n"], "seed": asked["seed"], "out": out, "stop_when": asked.get("stop_when")}
        settings |= {"compile": asked.get("compile", False), **shared, "weights": shared["weights"] or _weights(asked)}
        if asked["command"] == "reproduce":
            commands.reproduce(case=asked["cases"], curves=asked["curves"], **settings)
            return
        known: dict[str, Callable[..., None]] = {"attack": commands.attack, "audit": commands.audit}
        form = _form(asked)
        settings |= {"layout": "nhwc" if form.channels_last else "nchw", "pixel_range": form.pixel_max}
        settings |= {"output": form.output, "reject_class": form.reject_class, **asked["threat"], **asked["options"]}
        known[asked["command"]](asked["target"], asked["data"], **settings)


def clocked(asked: Mapping[str, Any]) -> tuple[str, ...]:
    """The attacks of a run whose results depend on the speed of the machine."""
    from unmask.auditing.budgets import timed

    with _told():
        return timed(asked["options"]["budget"]) if asked.get("command") == "audit" else ()


@contextmanager
def on_the_threads_of(run: Path) -> Iterator[None]:
    """Compute on as many threads as a run did, since sums round differently on more, or fewer."""
    import torch

    from unmask.run_files import read_run

    before = torch.get_num_threads()
    told = read_run(run).description.get("hardware")
    count = told.get("threads") if isinstance(told, dict) else None
    if isinstance(count, int) and 1 <= count <= (os.cpu_count() or 1):
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _form(asked: Mapping[str, Any]) -> ModelForm:
    from unmask.forms import ModelForm

    return ModelForm(**asked.get("form", {}))


def _weights(asked: Mapping[str, Any]) -> Path | None:
    return Path(asked["weights"]) if asked.get("weights") else None


def _refuse_python(asked: Mapping[str, Any]) -> None:
    if "made_by" in asked:
        raise ValueError(
            f"the run was made by {asked['made_by']!s:.40}, of a model in memory that no command can load: do it again "
            "there; report and compare read it"
        )


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"run.json does not say how to run it again ({error!r}): no command wrote it, or it was changed"
        ) from error
