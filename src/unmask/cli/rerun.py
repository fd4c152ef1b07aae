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
    from unmask.models.forms import ModelForm

__all__ = ["clocked", "do_again", "local_of", "on_the_threads_of", "planned"]

# Each function imports what it needs, so that help does not wait for torch.


def planned(config: Mapping[str, Any], local: LocalExecutor) -> list[Plan]:
    """The plan that follows from a configuration today; ValueError if there is none."""
    from unmask.auditing.question import plans

    with _told():
        return plans(config, local)


def local_of(config: Mapping[str, Any], batch: int, device: str, weights: Path | None) -> LocalExecutor:
    """The executor of a run with this configuration."""
    from unmask.evaluation.runner import LocalExecutor
    from unmask.models.compiling import Compiler

    _refuse_python(config)
    with _told():
        strict = config.get("command") != "audit"  # an audit makes models ready that the others refuse or take as is
        compiler = Compiler() if config.get("compile") else None
        folder = weights or _weights(config)
        return LocalExecutor(batch, device, folder, strict, _form(config), compiler, config.get("size"))


def do_again(config: Mapping[str, Any], out: Path, shared: Mapping[str, Any]) -> None:
    """Run a configuration again in a new folder, by its own command."""
    _refuse_python(config)
    with _told():
        settings = {"n": config["n"], "seed": config["seed"], "out": out, "stop_when": config.get("stop_when")}
        settings |= {
            "compile": config.get("compile", False),
            **shared,
            "weights": shared["weights"] or _weights(config),
        }
        if config["command"] == "reproduce":
            commands.reproduce(case=config["cases"], curves=config["curves"], **settings)
            return
        known: dict[str, Callable[..., None]] = {"attack": commands.attack, "audit": commands.audit}
        form = _form(config)
        settings |= {"layout": "nhwc" if form.channels_last else "nchw", "pixel_range": form.pixel_max}
        settings |= {"output": form.output, "reject_class": form.reject_class, "size": config.get("size")}
        settings |= {**config["threat"], **config["options"]}
        known[config["command"]](config["target"], config["data"], **settings)


def clocked(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The attacks of a run whose results depend on the speed of the machine."""
    from unmask.auditing.budgets import timed

    with _told():
        return timed(config["options"]["budget"]) if config.get("command") == "audit" else ()


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


def _form(config: Mapping[str, Any]) -> ModelForm:
    from unmask.models.forms import ModelForm

    return ModelForm(**config.get("form", {}))


def _weights(config: Mapping[str, Any]) -> Path | None:
    return Path(config["weights"]) if config.get("weights") else None


def _refuse_python(config: Mapping[str, Any]) -> None:
    if "made_by" in config:
        raise ValueError(
            f"the run was made by {config['made_by']!s:.40}, of a model in memory that no command can load: do it "
            "again there; report and compare read it"
        )


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"run.json does not say how to run it again ({error!r}): no command wrote it, or it was changed"
        ) from error
