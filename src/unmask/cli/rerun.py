"""What ``verify`` and ``rerun`` have in common: the configuration of a run, as arguments of the commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from unmask.cli import commands
from unmask.cli.options import Execution, Local
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.evaluation.runner import LocalExecutor
    from unmask.models.forms import ModelForm

__all__ = ["asked", "clocked", "do_again", "local_of", "on_the_threads_of"]

# Each function imports what it needs, so that help does not wait for torch.


def asked(run: Path) -> Mapping[str, Any]:
    """The configuration of a run; UnmaskError where it is not the question of a command."""
    from unmask.models.forms import ModelForm
    from unmask.records import ThreatSpec, built
    from unmask.run_files import read_run

    config = read_run(run).config
    if "made_by" in config:
        raise UnmaskError(
            f"the run was made by {config['made_by']!s:.40}, of a model in memory that no command can load",
            "do it again there; report and compare read it",
        )
    wanted = _QUESTIONS.get(str(config.get("command")), {"command": NoneType})
    raw = config.get("options", {})
    options = raw if isinstance(raw, dict) else {"options": raw}
    given = {"stop_when": None, "weights": None, "compile": False, "size": None, **config, **options}
    wrong = [name for name, kind in wanted.items() if not isinstance(given.get(name, ...), kind)]
    wrong = wrong or [name for name in options if name not in wanted]
    wrong = wrong or [
        name for name in ("cases", "bpda") if not all(isinstance(one, str) for one in given.get(name, ()))
    ]
    try:
        if wrong:
            raise UnmaskError(repr(wrong[0]))
        if config["command"] != "reproduce":
            built(ThreatSpec, config.get("threat"))
            built(ModelForm, config.get("form", {}))
    except UnmaskError as error:
        what = f"run.json does not say how to run it again ({error})"
        raise UnmaskError(f"{what}: no command wrote it, or it was changed") from error
    return config


def local_of(config: Mapping[str, Any], local: Local) -> LocalExecutor:
    """The executor of a run with this configuration."""
    from unmask.evaluation.runner import LocalExecutor

    strict = config["command"] != "audit"  # an audit makes models ready that the others refuse or take as is
    local = replace(local, weights=local.weights or _weights(config))
    return LocalExecutor(
        local.config(strict=strict, form=_form(config), size=config.get("size"), compile=config.get("compile", False))
    )


def do_again(config: Mapping[str, Any], out: Path, execution: Execution) -> None:
    """Run a configuration again in a new folder, by its own command."""
    settings = {**asdict(execution), "weights": execution.weights or _weights(config), "out": out}
    settings |= {name: config[name] for name in ("n", "seed")}
    settings |= {"stop_when": config.get("stop_when"), "compile": config.get("compile", False)}
    if config["command"] == "reproduce":
        commands.reproduce(case=config["cases"], curves=config["curves"], **settings)
        return
    known: dict[str, Callable[..., None]] = {"attack": commands.attack, "audit": commands.audit}
    form = _form(config)
    settings |= {"layout": "nhwc" if form.channels_last else "nchw", "pixel_range": form.pixel_max}
    settings |= {"mean": _listed(form.mean), "std": _listed(form.std), "num_classes": form.num_classes}
    settings |= {"checkpoint": form.checkpoint and Path(form.checkpoint), "rate_limit": form.rate_limit}
    settings |= {
        "output": form.output,
        "reject_class": form.reject_class,
        "size": config.get("size"),
        **config["threat"],
        **config["options"],
    }
    known[config["command"]](config["target"], data=config["data"], **settings)


def clocked(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The attacks of a run whose results depend on the speed of the machine."""
    from unmask.auditing.budgets import timed

    return timed(config["options"]["budget"]) if config["command"] == "audit" else ()


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


def _listed(values: Sequence[float]) -> str | None:
    """As the command line takes numbers."""
    return ",".join(map(repr, values)) or None


def _form(config: Mapping[str, Any]) -> ModelForm:
    from unmask.models.forms import ModelForm

    return ModelForm(**config.get("form", {}))


def _weights(config: Mapping[str, Any]) -> Path | None:
    return Path(config["weights"]) if config.get("weights") else None


_COMMON: dict[str, Any] = {"n": int, "seed": int, "stop_when": (str, NoneType), "weights": (str, NoneType)}
_COMMON |= {"compile": bool}
_MODEL = {**_COMMON, "size": (int, NoneType), "target": str, "data": str, "options": dict}
_COUNTS = dict.fromkeys(("steps", "restarts", "eot", "spsa"), int)
_QUESTIONS: dict[str, dict[str, Any]] = {
    "reproduce": {**_COMMON, "cases": list, "curves": bool},
    "attack": {**_MODEL, **_COUNTS, "attack": str, "bpda": list, "straight_through": bool},
    "audit": {**_MODEL, "budget": str},
}
