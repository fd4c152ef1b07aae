"""The commands that look at finished runs: check them, compare them, do them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask.cli.commands import app
from unmask.cli.console import say
from unmask.cli.options import Address, Batch, Device, Engine, GpusPerJob, Run, Weights, Workers

if TYPE_CHECKING:
    from unmask.report.compare import Pair

__all__ = ["app", "compare", "repeat", "size", "verify"]


@app.command()
def verify(
    run: Run,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another run of the same cases, to be compared with.")
    ] = None,
    batch_size: Batch = 128,
    device: Device = "cpu",
    weights: Weights = None,
) -> None:
    """Judge every stored adversarial example of a run again, on the original model, and compute every figure again.

    Exit with 1 if a verdict or figure differs, or anything that the run rests on was changed.

    Example: [bold]unmask verify runs/demo[/bold]
    """
    from unmask.evaluation.run import Local
    from unmask.evaluation.store import read_run
    from unmask.evaluation.verify import verify
    from unmask.forms import ModelForm
    from unmask.report.compare import against as held_against

    asked = read_run(run)["asked"]
    used = asked.get("weights")
    strict = asked.get("command") != "audit"  # an audit makes models ready that the others refuse or take as they are
    checks = []
    form = ModelForm(**asked.get("form", {}))
    local = Local(batch_size, device, weights or (Path(used) if used else None), strict, form)
    for check in verify(run, local):
        checks.append(check)
        if check.problem:
            say(f"FAILED {check.record}: {check.problem}")
    failed = sum(check.problem is not None for check in checks)
    examples = sum(check.examples for check in checks)
    records = sum(check.examples > 0 for check in checks)
    say(f"{records} records, {examples} adversarial examples judged again: {failed or 'none'} failed.")
    if against:
        _show(held_against(run, against))
    if failed:
        raise typer.Exit(1)


@app.command()
def repeat(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="New folder; the same command again continues it.")],
    batch_size: Batch = 128,
    device: Device = "cpu",
    weights: Weights = None,
    engine: Engine = "local",
    address: Address = None,
    gpus_per_job: GpusPerJob = 0.0,
    workers: Workers = None,
) -> None:
    """Do a run again from what it recorded of itself, and compare; exit with 1 if a verdict differs.

    What an attack leaves that had a budget in seconds depends on the machine: it is compared, and may differ.

    Example: [bold]unmask repeat runs/demo --out runs/again[/bold]
    """
    import torch

    from unmask.auditing.budgets import timed
    from unmask.cli import commands
    from unmask.evaluation.store import read_run
    from unmask.forms import ModelForm
    from unmask.report.compare import against, same

    before = read_run(run)
    asked = before["asked"]
    if out.resolve() == run.resolve():
        raise ValueError(f"{out} is the run itself: give --out a new folder")
    try:
        used = weights or (Path(asked["weights"]) if asked["weights"] else None)
        shared: dict[str, Any] = {
            "n": asked["n"],
            "seed": asked["seed"],
            "out": out,
            "batch_size": batch_size,
            "device": device,
            "weights": used,
            "stop_when": asked.get("stop_when"),
            "compile": asked.get("compile", False),
            "engine": engine,
            "address": address,
            "gpus_per_job": gpus_per_job,
            "workers": workers,
        }
        torch.set_num_threads(before["hardware"]["threads"])  # sums round differently on more, or fewer
        if asked["command"] == "reproduce":
            commands.reproduce(case=asked["cases"], sweep=asked["sweep"], **shared)
        else:
            known: dict[str, Callable[..., None]] = {"attack": commands.attack, "audit": commands.audit}
            command = known[asked["command"]]
            form = ModelForm(**asked["form"])
            shared |= {"layout": "nhwc" if form.channels_last else "nchw", "pixel_range": form.pixel_max}
            shared |= {"output": form.output, "refuse_class": form.reject_class}
            command(asked["target"], asked["data"], **asked["threat"], **asked["options"], **shared)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{run} does not tell how to do it again ({error!r}): an earlier version wrote it, or Python code"
        ) from error
    now = read_run(out)
    for name in ("versions", "hardware", "revision"):
        if before.get(name) != now.get(name):
            say(f"other {name}: {before.get(name)}, now {now.get(name)}")
    alike, total = same(run, out)
    say(f"{alike} of {total} records are the same to the bit.")
    pairs = [pair for pair in against(run, out) if pair.changed]
    _show(pairs)
    by_clock = timed(asked["options"]["budget"]) if asked["command"] == "audit" else ()
    if any(pair.attack in by_clock for pair in pairs):
        say(f"{', '.join(by_clock)}: its budget was in seconds, so what it leaves depends on the machine.")
    if any(pair.attack not in by_clock for pair in pairs) or not total:
        raise typer.Exit(1)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Folder of a run; may be the same.", show_default=False)],
    case: Annotated[str | None, typer.Option("--case", help="Case of the first run, where it has several.")] = None,
    with_: Annotated[str | None, typer.Option("--with", help="Case of the second run; default --case.")] = None,
) -> None:
    """Compare two defenses on the same images: exact McNemar test, interval of the difference.

    Example: [bold]unmask compare runs/a runs/b[/bold]
    """
    from unmask.report.compare import compare, unreliable

    cases = (case, with_ or case)
    _show(compare(first, second, cases))
    for line in unreliable(first, second, cases):
        say(line)


@app.command()
def size(
    accuracy: Annotated[float, typer.Option("--accuracy", help="Share expected to be left.")],
    width: Annotated[float, typer.Option("--width", help="Of the 95 % interval, as a share.")],
) -> None:
    """Tell how many examples an interval of a wished width takes.

    Example: [bold]unmask size --accuracy 0.05 --width 0.02[/bold]
    """
    from unmask.statistics import size

    say(f"--n {size(accuracy, width)}")
    say(f"with --stop-when: about {size(accuracy, width, anytime=True)}")


def _show(pairs: Iterable[Pair]) -> None:
    for pair in pairs:
        d = pair.difference
        say(
            f"{pair.what}: {100 * pair.first.value:.1f} % and {100 * pair.second.value:.1f} %, difference "
            f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}] points, p = {d.p:.2g}; "
            f"{pair.changed} of {d.n} examples differ"
        )
