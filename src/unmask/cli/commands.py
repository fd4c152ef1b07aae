"""The commands: their arguments, and what each of them calls."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.console import fail, say, warn
from unmask.cli.console import out as console
from unmask.cli.execute import carry_out, cluster_of, form_of, show_data
from unmask.cli.lists import TOPICS
from unmask.cli.options import (
    Batch,
    Compile,
    Data,
    Device,
    Eps,
    ExecutorName,
    FailingOn,
    FailUnder,
    GpusPerJob,
    Layout,
    Out,
    OutputKey,
    PixelRange,
    RayAddress,
    RayWorkers,
    RejectClass,
    Run,
    Seed,
    Size,
    StopWhen,
    Target,
    Weights,
)
from unmask.cli.threshold import FailOn, Threshold

__all__ = ["SUITE_NAMES", "app"]

SUITE_NAMES = ("digits", "mnist", "cifar10", "imagenet", "iclr2018")

# Each command imports what it needs, so that help does not wait for torch.
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"unmask {metadata.version('unmask')}")
        raise typer.Exit


@app.callback()
def _unmask(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Is a classifier's adversarial robustness real, or does the model only mask its gradient?

    Example: [bold]unmask reproduce --suite digits[/bold]
    """


@app.command()
def reproduce(
    suite: Annotated[
        str | None, typer.Option("--suite", help=f"Several cases: {', '.join(SUITE_NAMES)}; those that can run.")
    ] = None,
    case: Annotated[list[str] | None, typer.Option("--case", help="A case by name; may be repeated.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Test examples; the first n, or all there are.")] = 1000,
    out: Out = Path("runs/reproduce"),
    seed: Seed = 0,
    batch_size: Batch = 128,
    device: Device = "cpu",
    weights: Weights = None,
    curves: Annotated[
        bool, typer.Option("--curves/--no-curves", help="Also measure curves over eps, and the controls.")
    ] = True,
    fail_under: FailUnder = None,
    fail_on: FailingOn = FailOn.FIGURE,
    stop_when: StopWhen = None,
    executor: ExecutorName = "local",
    ray_address: RayAddress = None,
    gpus_per_job: GpusPerJob = 0.0,
    ray_workers: RayWorkers = None,
    compile: Compile = False,
) -> None:
    """Attack published defenses and show what is left of them.

    Of a suite those cases run whose data and weights are here; exit with 1 if some are skipped.

    Example: [bold]unmask reproduce --case thermometer-mnist --n 200 --out runs/thermometer[/bold]
    """
    from unmask.auditing.question import plans
    from unmask.cases import SUITES, find_case
    from unmask.evaluation.available import available
    from unmask.evaluation.runner import LocalExecutor

    if suite is not None and suite not in SUITES:
        raise ValueError(f"no suite {suite!r}; suites: {', '.join(SUITES)}")
    threshold = Threshold.of(fail_under, fail_on)
    named = [find_case(name) for name in dict.fromkeys(case or ())]
    of_suite = [find_case(name) for name in SUITES[suite or "digits"]] if suite or not named else []
    cluster = cluster_of(executor, ray_address, gpus_per_job, ray_workers)
    local = LocalExecutor(batch_size, device, weights)
    sorted_out = available(of_suite, lambda data: local.dataset(data, n))
    if sorted_out.skipped:
        warn(str(sorted_out))
    cases = {found.name: found for found in (*sorted_out.cases, *named)}.values()
    if not cases:
        raise typer.Exit(1)
    config = {"command": "reproduce", "cases": [found.name for found in cases], "n": n, "seed": seed, "curves": curves}
    carry_out(
        plans(config, local), out, config, {"suite": suite}, local, threshold, stop_when, cluster, compile=compile
    )
    if sorted_out.skipped:
        raise typer.Exit(fail(f"skipped, since data or weights are missing: {', '.join(sorted_out.skipped)}", 1))


@app.command()
def attack(
    target: Target,
    data: Data,
    eps: Eps,
    norm: Annotated[str, typer.Option("--norm", help="linf, l2 or l1.")] = "linf",
    unit: Annotated[str, typer.Option("--eps-unit", help="raw, rms, rms_pixel, relative or per_dim.")] = "raw",
    attack: Annotated[str, typer.Option("--attack", help="See `unmask list attacks`.")] = "apgd",
    bpda: Annotated[list[str] | None, typer.Option("--bpda", help="PATH=identity; may be repeated.")] = None,
    straight_through: Annotated[bool, typer.Option("--straight-through", help="Pass inline operations.")] = False,
    eot: Annotated[int, typer.Option("--eot", min=0, help="Draws per gradient of a random model.")] = 0,
    spsa: Annotated[int, typer.Option("--spsa", min=0, help="Pairs of scores per gradient, instead of autograd.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Gradients, queries or samples per search.")] = 100,
    restarts: Annotated[int, typer.Option("--restarts", min=1, help="Searches per example.")] = 1,
    layout: Layout = "nchw",
    pixel_range: PixelRange = 1.0,
    output: OutputKey = None,
    reject_class: RejectClass = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Test examples; the first n, or all there are.")] = 200,
    size: Size = None,
    out: Out = Path("runs/attack"),
    seed: Seed = 0,
    batch_size: Batch = 128,
    device: Device = "cpu",
    weights: Weights = None,
    fail_under: FailUnder = None,
    fail_on: FailingOn = FailOn.FIGURE,
    stop_when: StopWhen = None,
    executor: ExecutorName = "local",
    ray_address: RayAddress = None,
    gpus_per_job: GpusPerJob = 0.0,
    ray_workers: RayWorkers = None,
    compile: Compile = False,
) -> None:
    """Attack any model with the techniques that you choose.

    Example: [bold]unmask attack my_model.py:build --data mnist --eps 0.3 --attack apgd --bpda encode=identity[/bold]
    """
    from unmask.auditing.question import plans
    from unmask.evaluation.runner import LocalExecutor

    threshold = Threshold.of(fail_under, fail_on)
    options = {
        "attack": attack,
        "steps": steps,
        "restarts": restarts,
        "eot": eot,
        "spsa": spsa,
        "bpda": bpda or [],
        "straight_through": straight_through,
    }
    cluster = cluster_of(executor, ray_address, gpus_per_job, ray_workers)
    form = form_of(layout, pixel_range, output, reject_class)
    local = LocalExecutor(batch_size, device, weights, form=form, size=size)
    config = {"command": "attack", "target": target, "data": data, "n": n, "seed": seed}
    config |= {"threat": {"norm": norm.lower(), "eps": eps, "unit": unit}, "options": options, "form": asdict(form)}
    config |= show_data(local, data, n)
    carry_out(plans(config, local), out, config, {"suite": None}, local, threshold, stop_when, cluster, compile=compile)


@app.command()
def audit(
    target: Target,
    data: Data,
    eps: Eps,
    norm: Annotated[str, typer.Option("--norm", help="linf, l2 or l1.")] = "linf",
    unit: Annotated[str, typer.Option("--eps-unit", help="raw, rms, rms_pixel, relative or per_dim.")] = "raw",
    budget: Annotated[
        str, typer.Option("--budget", help="quick, standard, thorough, or seconds for each example: 2s.")
    ] = "standard",
    n: Annotated[int, typer.Option("--n", min=1, help="Test examples; the first n, or all there are.")] = 200,
    size: Size = None,
    out: Out = Path("runs/audit"),
    seed: Seed = 0,
    batch_size: Batch = 128,
    device: Device = "cpu",
    weights: Weights = None,
    layout: Layout = "nchw",
    pixel_range: PixelRange = 1.0,
    output: OutputKey = None,
    reject_class: RejectClass = None,
    fail_under: FailUnder = None,
    fail_on: FailingOn = FailOn.FIGURE,
    stop_when: StopWhen = None,
    executor: ExecutorName = "local",
    ray_address: RayAddress = None,
    gpus_per_job: GpusPerJob = 0.0,
    ray_workers: RayWorkers = None,
    compile: Compile = False,
) -> None:
    """Probe any model, build the attack that suits its gradients, and report the robust accuracy.

    Example: [bold]unmask audit my_model.py:build --data mnist --eps 0.3 --out runs/audit[/bold]
    """
    from unmask.auditing.question import plans
    from unmask.cli.progress import planning
    from unmask.evaluation.runner import LocalExecutor

    threshold = Threshold.of(fail_under, fail_on)
    cluster = cluster_of(executor, ray_address, gpus_per_job, ray_workers)
    device = "cuda" if gpus_per_job else device  # what is planned here must be what the workers find
    form = form_of(layout, pixel_range, output, reject_class)
    local = LocalExecutor(batch_size, device, weights, strict=False, form=form, size=size)
    config = {"command": "audit", "target": target, "data": data, "n": n, "seed": seed}
    config |= {
        "threat": {"norm": norm.lower(), "eps": eps, "unit": unit},
        "options": {"budget": budget},
        "form": asdict(form),
    }
    config |= show_data(local, data, n)
    if cluster:
        cluster.ready = partial(plans, config)
    with planning():
        planned = plans(config, local)
    carry_out(planned, out, config, {"suite": None}, local, threshold, stop_when, cluster, compile=compile)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Name of a case.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default runs/train-NAME.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Train a case's weights; an interrupted training continues.

    Example: [bold]unmask train madry-mnist --out runs/train[/bold], then
    [bold]unmask reproduce --case madry-mnist --weights runs/train[/bold]
    """
    import torch

    from unmask.cases import find_case
    from unmask.weights import save_weights

    case = find_case(name)
    if case.train is None:
        other = f"train {case.base_case}" if case.base_case else f"`unmask fetch {case.pretrained}`"
        raise ValueError(f"{name} has no weights of its own: {other}")
    folder = out or Path("runs") / f"train-{name}"
    torch.manual_seed(seed)
    trained = case.base_case is not None and (folder / f"{case.base_case}.safetensors").is_file()
    model = case.prepare(folder if trained else None)
    for log in case.train(model, folder / name, seed=seed, device=device):
        console.print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in log.items()))
    path = folder / f"{name}.safetensors"
    save_weights(model, path, without=case.base_module)
    console.print(f"Weights: {path}. Use them with --weights {folder}")


@app.command()
def report(run: Run) -> None:
    """Render a run's report.html, report.md and report.json again from its records.

    Example: [bold]unmask report runs/demo[/bold]
    """
    from unmask.report import summary, write

    path = write(run)
    console.print(summary(run))
    say(f"Report: {path.resolve()}")


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="cases, defenses, attacks, datasets or models.")] = "cases") -> None:
    """List what there is.

    Example: [bold]unmask list attacks[/bold]
    """
    if what not in TOPICS:
        raise ValueError(f"nothing to list under {what!r}; there are: {', '.join(TOPICS)}")
    entries = TOPICS[what]()
    width = max(map(len, entries))
    for name, about in entries.items():
        say(f"{name:{width}}  {about}")
