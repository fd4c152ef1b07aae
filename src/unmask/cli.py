"""The command line: arguments in, exit codes out. Everything else is done elsewhere."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from unmask.evaluation.plan import Plan
    from unmask.evaluation.run import Local
    from unmask.records import Job, Record

__all__ = ["app", "main"]

# Each command imports what it needs, so that help does not wait for torch.
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
_out = Console()
_err = Console(stderr=True)

Out = Annotated[Path, typer.Option("--out", help="Folder of the run; the same command again continues it.")]
Seed = Annotated[int, typer.Option("--seed", help="All randomness follows from it.")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time; results do not depend on it.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")]
Weights = Annotated[Path | None, typer.Option("--weights", help="Folder of weights to use instead of those that ship.")]
FailUnder = Annotated[
    float | None,
    typer.Option("--fail-under", min=0, max=1, help="Exit with 1 if less accuracy than this share is left of a case."),
]
Run = Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]


@app.callback()
def _unmask() -> None:
    """Is a classifier's adversarial robustness real, or does it only hide the gradient?

    Example: [bold]unmask reproduce --suite digits[/bold]
    """


@app.command()
def reproduce(
    suite: Annotated[str | None, typer.Option("--suite", help="All cases of one data set: digits, mnist.")] = None,
    case: Annotated[list[str] | None, typer.Option("--case", help="A case by name; may be repeated.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Test examples; the first n, or all there are.")] = 1000,
    out: Out = Path("runs/reproduce"),
    seed: Seed = 0,
    batch_size: Batch = 128,
    device: Device = "cpu",
    weights: Weights = None,
    sweep: Annotated[bool, typer.Option(help="Also measure curves over eps, and the controls.")] = True,
    fail_under: FailUnder = None,
) -> None:
    """Attack published defenses and show what is left of them.

    Example: [bold]unmask reproduce --case thermometer-mnist --n 200 --out runs/thermometer[/bold]
    """
    from unmask.cases import SUITES, find_case
    from unmask.evaluation.plan import plan_case
    from unmask.evaluation.run import Local

    if suite is not None and suite not in SUITES:
        raise ValueError(f"no suite {suite!r}; suites: {', '.join(SUITES)}")
    names = [*(SUITES[suite] if suite else ()), *(case or ())] or SUITES["digits"]
    cases = [find_case(name) for name in dict.fromkeys(names)]
    local = Local(batch_size, device, weights)
    plans = [plan_case(found, local.dataset(found.data, n), n, seed, sweep=sweep) for found in cases]
    asked = {"command": "reproduce", "cases": [found.name for found in cases], "n": n, "seed": seed, "sweep": sweep}
    _run(plans, out, asked, {"suite": suite}, local, fail_under)


@app.command()
def attack(
    target: Annotated[str, typer.Argument(help="case:NAME, path/to/file.py:factory or package.module:factory.")],
    data: Annotated[str, typer.Option("--data", help="digits, mnist, cifar10, imagenet-sample, or a folder.")],
    eps: Annotated[float, typer.Option("--eps", help="Size of the ball.")],
    norm: Annotated[str, typer.Option("--norm", help="linf, l2 or l1.")] = "linf",
    unit: Annotated[str, typer.Option("--unit", help="raw, rms, rms_pixel, relative or per_dim.")] = "raw",
    attack: Annotated[str, typer.Option("--attack", help="See `unmask list attacks`.")] = "apgd",
    bpda: Annotated[list[str] | None, typer.Option("--bpda", help="PATH=identity; may be repeated.")] = None,
    straight_through: Annotated[bool, typer.Option("--straight-through", help="Pass inline operations.")] = False,
    eot: Annotated[int, typer.Option("--eot", min=0, help="Draws per gradient of a random model.")] = 0,
    spsa: Annotated[int, typer.Option("--spsa", min=0, help="Pairs of scores per gradient, instead of autograd.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Gradients, queries or samples per search.")] = 100,
    restarts: Annotated[int, typer.Option("--restarts", min=1, help="Searches per example.")] = 1,
    n: Annotated[int, typer.Option("--n", min=1, help="Test examples; the first n, or all there are.")] = 200,
    out: Out = Path("runs/attack"),
    seed: Seed = 0,
    batch_size: Batch = 128,
    device: Device = "cpu",
    weights: Weights = None,
    fail_under: FailUnder = None,
) -> None:
    """Attack any model with the techniques that you choose.

    Example: [bold]unmask attack my_model.py:build --data mnist --eps 0.3 --attack apgd --bpda encode=identity[/bold]
    """
    from unmask.evaluation.plan import plan_attack
    from unmask.evaluation.run import Local
    from unmask.threats import parse

    threat = parse(norm, eps, unit)
    options = {
        "attack": attack,
        "steps": steps,
        "restarts": restarts,
        "eot": eot,
        "spsa": spsa,
        "bpda": bpda or [],
        "straight_through": straight_through,
    }
    local = Local(batch_size, device, weights)
    images = local.dataset(data, n)
    plan = plan_attack(target, local.target(target, images), images, threat, n, seed, options)
    asked = {"command": "attack", "target": target, "data": data, "n": n, "seed": seed}
    asked |= {"threat": plan.about["threat"], "options": options}
    _run([plan], out, asked, {"suite": None}, local, fail_under)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Name of a case.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default runs/train-NAME.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Train a case's weights anew; an interrupted training continues.

    Example: [bold]unmask train madry-mnist --out runs/train[/bold], then
    [bold]unmask reproduce --case madry-mnist --weights runs/train[/bold]
    """
    import torch

    from unmask.cases import find_case
    from unmask.weights import save_weights

    case = find_case(name)
    folder = out or Path("runs") / f"train-{name}"
    torch.manual_seed(seed)
    model = case.build()
    for log in case.train(model, folder / name, seed=seed, device=device):
        _out.print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in log.items()))
    path = folder / f"{name}.safetensors"
    save_weights(model, path)
    _out.print(f"Weights: {path}. Use them with --weights {folder}")


@app.command()
def report(run: Run) -> None:
    """Render a run's report.html, report.md and report.json again from its records.

    Example: [bold]unmask report runs/demo[/bold]
    """
    from unmask.report import summary, write

    path = write(run)
    _out.print(summary(run))
    _say(f"Report: {path.resolve()}")


@app.command()
def verify(run: Run, batch_size: Batch = 128, device: Device = "cpu", weights: Weights = None) -> None:
    """Judge every stored adversarial example of a run again, on the original model; exit with 1 if one differs.

    Example: [bold]unmask verify runs/demo[/bold]
    """
    from unmask.evaluation.run import Local
    from unmask.evaluation.store import read_run
    from unmask.evaluation.verify import verify

    used = read_run(run)["asked"].get("weights")
    checks = []
    for check in verify(run, Local(batch_size, device, weights or (Path(used) if used else None))):
        checks.append(check)
        if check.problem:
            _say(f"FAILED {check.record}: {check.problem}")
    failed = sum(check.problem is not None for check in checks)
    examples = sum(check.examples for check in checks)
    _say(f"{len(checks)} records, {examples} adversarial examples judged again: {failed or 'none'} failed.")
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="cases, defenses, attacks, datasets or models.")] = "cases") -> None:
    """List what there is.

    Example: [bold]unmask list attacks[/bold]
    """
    topics = {
        "cases": _cases,
        "defenses": _defenses,
        "attacks": _attacks,
        "datasets": _datasets,
        "models": _models,
    }
    if what not in topics:
        raise ValueError(f"nothing to list under {what!r}; there are: {', '.join(topics)}")
    entries = topics[what]()
    width = max(map(len, entries))
    for name, about in entries.items():
        _say(f"{name:{width}}  {about}")


def _cases() -> dict[str, str]:
    from unmask.cases import CASES

    return {
        c.name: f"{c.defense}, {c.kind}; {c.threat.norm} {c.threat.eps:g} {c.threat.unit}; {c.citation}"
        for c in CASES.values()
    }


def _defenses() -> dict[str, str]:
    from unmask.cases import CASES

    return {c.defense: c.citation for c in CASES.values() if c.defense != "none"}


def _attacks() -> dict[str, str]:
    from unmask.evaluation.chosen import ATTACKS

    return {name: setting.about for name, setting in ATTACKS.items()}


def _datasets() -> dict[str, str]:
    from unmask.data import describe, names

    return {name: describe(name) for name in names()}


def _models() -> dict[str, str]:
    """What may be given as a target."""
    return {f"case:{name}": about for name, about in _cases().items()} | {
        "path/to/file.py:factory": "your own: a function without arguments that returns an nn.Module",
        "package.module:factory": "the same, by import",
    }


def _run(
    plans: Sequence[Plan],
    out: Path,
    asked: dict[str, Any],
    about: dict[str, Any],
    local: Local,
    fail_under: float | None,
) -> None:
    """Do what is left to do, render, and hold the accuracy against what was asked for."""
    from unmask.evaluation.environment import environment
    from unmask.evaluation.run import run
    from unmask.evaluation.store import Store
    from unmask.report import summary, write
    from unmask.report.read import RunFolder
    from unmask.report.table import table

    asked = {**asked, "weights": local.weights and str(local.weights.resolve())}
    about = {**{name: asked[name] for name in ("command", "n", "seed")}, **about, "cases": [p.about for p in plans]}
    jobs = [job for plan in plans for job in plan.jobs]
    with Store.open(out, asked, {**about, **environment()}) as store, _progress(jobs) as progress:
        run(jobs, store, local, progress)
    path = write(out)
    _out.print(summary(out))
    _say(f"Report: {path.resolve()}")
    if fail_under is not None:
        left = {row.case: row.adaptive or row.plain for row in table(RunFolder.read(out))}
        under = [f"{name} {a.value:.4g}" for name, a in left.items() if a and a.value < fail_under]
        if under:
            raise typer.Exit(_fail(f"accuracy left under {fail_under:g}: {', '.join(under)}", 1))


@contextmanager
def _progress(jobs: Sequence[Job]) -> Iterator[Callable[[Record, bool], None]]:
    """On a terminal a bar with the accuracy so far and the time left; elsewhere a line per finished attack."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("examples, left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    total = {_label(job): 0 for job in jobs}
    for job in jobs:
        total[_label(job)] += job.stop - job.start
    scores: dict[str, list[float]] = {label: [] for label in total}
    everything = sum(total.values())
    with Progress(*columns, console=_err, disable=not _err.is_terminal, speed_estimate_period=86400) as bar:
        task = bar.add_task("starting", total=everything)

        def progress(record: Record, stored: bool) -> None:
            label = _label(record.job)
            scores[label] += [example.robust for example in record.examples]
            line = f"{label} {100 * sum(scores[label]) / len(scores[label]):.1f} %"
            done = sum(map(len, scores.values()))
            if not stored or done == everything:  # at once: what was stored says nothing of the time left
                bar.update(task, completed=done, description=line)
            if not stored and bar.disable and len(scores[label]) == total[label]:
                _err.print(f"{line} ({total[label]} examples; {done} of {everything})", highlight=False, soft_wrap=True)

        yield progress


def _label(job: Job) -> str:
    """What a reader calls the attack that a job is a part of."""
    at = f" at {job.threat.eps:.4g}" if job.role == "sweep" else ""
    return f"{job.target.removeprefix('case:')} {job.options.get('control', job.attack)}{at}"


def main() -> NoReturn:
    """Run the command line; exit codes: 0 done, 1 check failed, 2 bad input, 130 interrupted."""
    try:
        with typer.main.get_command(app).make_context("unmask", sys.argv[1:] or ["--help"]) as context:
            context.command.invoke(context)
        sys.stdout.flush()
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    except KeyboardInterrupt:
        code = _fail("interrupted; the same command again continues", 130)
    except BrokenPipeError:  # whoever read the output has read enough
        code = _muted(0)
    except OSError as error:
        code = _muted(_fail(_fault(error)))
    except ValueError as error:
        code = _fail(str(error))
    except Exception as error:
        usage: Any = error
        if not hasattr(error, "format_message"):  # of whichever click typer brings
            raise
        command = usage.ctx.command_path if usage.ctx else "unmask"
        code = _fail(f"{usage.format_message().rstrip('.')}; see `{command} --help`")
    sys.exit(code)


def _fault(error: OSError) -> str:
    """What the system refused, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error.strerror}: make room, then the same command again continues"
    return f"{error.filename or 'the system'}: {error.strerror or error}: mend that, then give the same command again"


def _muted(code: int) -> int:
    """Python flushes stdout at exit, and must not fail there once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def _say(line: str) -> None:
    """A line for people and pipes alike, which no width breaks."""
    print(line)


def _fail(message: str, code: int = 2) -> int:
    _err.print(f"unmask: {' '.join(message.split())}", markup=False, highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    main()
