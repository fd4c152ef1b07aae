"""The command line: arguments in, exit codes out. Everything else is done elsewhere."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from unmask.records import Job

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
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
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Test examples; the first n. Default 1000, or all.")
    ] = None,
    out: Out = Path("runs/reproduce"),
    seed: Seed = 0,
    batch_size: Batch = 128,
    device: Device = "cpu",
    weights: Weights = None,
    sweep: Annotated[bool, typer.Option(help="Also measure curves over eps, and the controls.")] = True,
) -> None:
    """Attack published defenses and show what is left of them.

    Example: [bold]unmask reproduce --case thermometer-mnist --n 200 --out runs/thermometer[/bold]
    """
    from unmask.cases import CASES, SUITES, find_case
    from unmask.data import load
    from unmask.evaluation.plan import describe, plan_case

    if suite is not None and suite not in SUITES:
        raise ValueError(f"no suite {suite!r}; suites: {', '.join(SUITES)}")
    names = [*(SUITES[suite] if suite else ()), *(case or ())] or list(SUITES["digits"])
    cases = [find_case(name) for name in dict.fromkeys(names)]
    assert set(names) <= set(CASES)
    jobs: list[Job] = []
    described = []
    for chosen in cases:
        data = load(chosen.data, "test")
        count = min(n or 1000, len(data))
        jobs += plan_case(chosen, count, seed, sweep=sweep)
        described.append({**describe(chosen, data.note), "classes": data.classes})
    asked = {"command": "reproduce", "cases": [c.name for c in cases], "n": n, "seed": seed, "sweep": sweep}
    about = {"command": "reproduce", "suite": suite, "n": n, "seed": seed, "cases": described}
    _run(jobs, out, asked, about, batch_size, device, weights)


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
    restarts: Annotated[int, typer.Option("--restarts", min=1)] = 1,
    n: Annotated[int, typer.Option("--n", min=1, help="Test examples; the first n.")] = 200,
    out: Out = Path("runs/attack"),
    seed: Seed = 0,
    batch_size: Batch = 128,
    device: Device = "cpu",
    weights: Weights = None,
) -> None:
    """Attack any model with the techniques that you choose.

    Example: [bold]unmask attack my_model.py:build --data mnist --eps 0.3 --attack apgd --bpda encode=identity[/bold]
    """
    from unmask.data import load
    from unmask.evaluation.chosen import chosen
    from unmask.evaluation.plan import blocks
    from unmask.evaluation.targets import check_model, find_target
    from unmask.records import Job, ThreatSpec
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
    attacker = chosen(options)
    found = find_target(target, weights=weights)
    images = load(data, "test")
    count = min(n, len(images))
    check_model(found.model, *images.batch(0, min(count, 8)))
    if attacker.view is not None:
        attacker.view(found.model)  # names of parts are checked before anything is computed
    spec = ThreatSpec(threat.norm, threat.eps, threat.unit)
    role = "plain" if attacker.plain else "adaptive"
    jobs = [Job(target, data, "clean", spec, seed, a, b, "clean") for a, b in blocks(count)]
    jobs += [Job(target, data, attack, spec, seed, a, b, role, options) for a, b in blocks(count)]
    described = {
        "case": target,
        "defense": target,
        "data": data,
        "kind": "unknown",
        "threat": {"norm": spec.norm, "eps": spec.eps, "unit": spec.unit},
        "claimed": None,
        "published": None,
        "citation": "",
        "random": False,
        "note": images.note,
        "attacks": {attack: attacker.about},
        "classes": images.classes,
    }
    asked = {"command": "attack", "target": target, "data": data, "n": n, "seed": seed, "options": options}
    asked["threat"] = described["threat"]
    about = {"command": "attack", "suite": None, "n": n, "seed": seed, "cases": [described]}
    _run(jobs, out, asked, about, batch_size, device, weights)


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
    _out.print(f"Report: {path.resolve()}", soft_wrap=True)


@app.command()
def verify(run: Run, batch_size: Batch = 128, device: Device = "cpu", weights: Weights = None) -> None:
    """Judge every stored adversarial example of a run again, on the original model.

    Example: [bold]unmask verify runs/demo[/bold]
    """
    from unmask.evaluation.run import Local
    from unmask.evaluation.verify import verify as check

    if not (run / "run.json").is_file():
        raise ValueError(f"{run} holds no run: no run.json in it; give the folder that --out named")
    failed = count = examples = 0
    for result in check(run, Local(batch_size, device, weights)):
        job = result.record.job
        count, examples = count + 1, examples + len(result.record.examples)
        if result.problem:
            failed += 1
            _out.print(
                f"[red]FAILED[/red] {job.key} {job.target} {job.attack} {job.start}-{job.stop}: {result.problem}"
            )
    _out.print(f"{count} records, {examples} adversarial examples judged again: {failed or 'none'} failed.")
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="cases, defenses, attacks, datasets or models.")] = "cases") -> None:
    """List what there is.

    Example: [bold]unmask list attacks[/bold]
    """
    from unmask.cases import CASES
    from unmask.data import describe, names
    from unmask.evaluation.chosen import ATTACKS

    lists: dict[str, dict[str, str]] = {
        "cases": {c.name: f"{c.defense}, {c.kind}; {_words(c.threat)}; {c.citation}" for c in CASES.values()},
        "defenses": {c.defense: c.citation for c in CASES.values() if c.kind != "none" or "train" in c.defense},
        "attacks": {name: about for name, (about, _) in ATTACKS.items()},
        "datasets": {name: describe(name) for name in names()},
        "models": {f"case:{c.name}": c.citation for c in CASES.values()},
    }
    if what not in lists:
        raise ValueError(f"nothing to list under {what!r}; there are: {', '.join(lists)}")
    width = max(map(len, lists[what]))
    for name, about in lists[what].items():
        _out.print(f"[bold]{name:{width}}[/bold]  {about}", highlight=False)


def _words(threat: Any) -> str:
    return f"{threat.norm} {threat.eps:g} {threat.unit}"


def _run(
    jobs: list[Job],
    out: Path,
    asked: dict[str, Any],
    about: dict[str, Any],
    batch: int,
    device: str,
    weights: Path | None,
) -> None:
    from unmask.evaluation.environment import environment
    from unmask.evaluation.run import Local, run
    from unmask.evaluation.store import Store
    from unmask.report import summary, write

    asked["weights"] = str(weights) if weights else None
    store = Store(out)
    store.open(asked, {**about, **environment()})
    with _progress(jobs) as progress:
        run(jobs, store, Local(batch, device, weights), progress)
    path = write(out)
    _out.print(summary(out))
    _out.print(f"Report: {path.resolve()}", soft_wrap=True)


@contextmanager
def _progress(jobs: list[Job]) -> Iterator[Any]:
    """A bar that shows examples done, accuracy so far of the attack at work, and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from unmask.records import Record

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("examples"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    scores: dict[tuple[str, str, float, str], list[float]] = {}
    with Progress(*columns, console=_err, refresh_per_second=4) as bar:
        task = bar.add_task("starting", total=sum(job.stop - job.start for job in jobs))

        def progress(record: Record, stored: bool) -> None:
            job = record.job
            group = scores.setdefault((job.target, job.attack, job.threat.eps, job.role), [])
            group.extend(example.robust for example in record.examples)
            so_far = 100 * sum(group) / len(group)
            name = job.target.removeprefix("case:")
            bar.update(task, advance=job.stop - job.start, description=f"{name} {job.attack} {so_far:.1f} %")

        yield progress


def main() -> NoReturn:
    """Run the command line; exit codes: 0 done, 1 check failed, 2 bad input, 130 interrupted."""
    try:
        code = app(standalone_mode=False) or 0
    except KeyboardInterrupt:
        code = _fail("interrupted; the same command again continues", 130)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = _fail("the disk is full: free some space, then the same command again continues" if full else str(error))
    except ValueError as error:
        code = _fail(str(error))
    except typer.Abort:
        code = _fail("interrupted; the same command again continues", 130)
    except Exception as error:
        shown = getattr(error, "format_message", None)
        if shown is None:
            raise
        code = _fail(shown() or "unknown command; see `unmask --help`")
    sys.stdout.flush()
    sys.exit(code)


def _fail(message: str, code: int = 2) -> int:
    _err.print(f"unmask: {' '.join(message.split())}", markup=False, highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    main()
