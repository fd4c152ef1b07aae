"""The commands: their arguments, and what each of them calls."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.console import fail, say, warn
from unmask.cli.console import out as console
from unmask.cli.execute import carry_out, show_data
from unmask.cli.lists import TOPICS
from unmask.cli.option_groups import grouped
from unmask.cli.options import (
    AttackOptions,
    DataOptions,
    Device,
    Execution,
    FormOptions,
    Out,
    Run,
    Seed,
    Target,
    ThreatOptions,
    Verdict,
    of_case,
)
from unmask.errors import UnmaskError

__all__ = ["SUITE_NAMES", "app"]

SUITE_NAMES = ("digits", "mnist", "cifar10", "imagenet", "iclr2018", "post2018", "selfstudy")

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
@grouped
def reproduce(
    execution: Execution,
    verdict: Verdict,
    suite: Annotated[
        str | None, typer.Option("--suite", help=f"Several cases: {', '.join(SUITE_NAMES)}; those that can run.")
    ] = None,
    case: Annotated[list[str] | None, typer.Option("--case", help="A case by name; may be repeated.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Test examples; the first n, or all there are.")] = 1000,
    out: Out = Path("runs/reproduce"),
    seed: Seed = 0,
    curves: Annotated[
        bool, typer.Option("--curves/--no-curves", help="Also measure curves over eps, and the controls.")
    ] = True,
) -> None:
    """Attack published defenses and show what is left of them.

    Of a suite those cases run whose data and weights are here; exit with 1 if some are skipped.

    Example: [bold]unmask reproduce --case thermometer-mnist --n 200 --out runs/thermometer[/bold]
    """
    from unmask.cli.progress import planning

    verdict.threshold()
    with planning("load torch"):
        from unmask.auditing.question import plans
        from unmask.cases import SUITES, find_case
        from unmask.evaluation.available import available
        from unmask.evaluation.runner import LocalExecutor
        from unmask.models.forms import ModelForm

    if suite is not None and suite not in SUITES:
        raise UnmaskError(f"no suite {suite!r}; suites: {', '.join(SUITES)}")
    named = [find_case(name) for name in dict.fromkeys(case or ())]
    of_suite = [find_case(name) for name in SUITES[suite or "digits"]] if suite or not named else []
    settings = execution.config(strict=True, form=ModelForm(), compile=verdict.compile)
    cluster, local = execution.cluster(settings), LocalExecutor(settings)
    sorted_out = available(of_suite, lambda data: local.dataset(data, n))
    if sorted_out.skipped:
        warn(str(sorted_out))
    cases = {found.name: found for found in (*sorted_out.cases, *named)}.values()
    if not cases:
        raise typer.Exit(1)
    config = {"command": "reproduce", "cases": [found.name for found in cases], "n": n, "seed": seed, "curves": curves}
    carry_out(plans(config, local), out, config, local, cluster, verdict, suite)
    if sorted_out.skipped:
        raise typer.Exit(fail(f"skipped, since data or weights are missing: {', '.join(sorted_out.skipped)}", 1))


@app.command()
@grouped
def attack(
    target: Target,
    data: DataOptions,
    threat: ThreatOptions,
    options: AttackOptions,
    form: FormOptions,
    execution: Execution,
    verdict: Verdict,
    out: Out = Path("runs/attack"),
    seed: Seed = 0,
) -> None:
    """Attack any model with the techniques that you choose.

    Example: [bold]unmask attack my_model.py:build --data mnist --eps 0.3 --attack apgd --bpda encode=identity[/bold]
    """
    from unmask.cli.progress import planning

    verdict.threshold()
    with planning("load torch"):
        data, threat = of_case(target, data, threat)
        from unmask.auditing.question import plans
        from unmask.evaluation.runner import LocalExecutor

    settings = execution.config(strict=True, form=form.form(), size=data.size, compile=verdict.compile)
    cluster, local = execution.cluster(settings), LocalExecutor(settings)
    config = {"command": "attack", "target": target, **data.config, "seed": seed, "threat": threat.config}
    show_data(local, data)
    config |= {"options": {**asdict(options), "bpda": options.bpda or []}, "form": settings.form.stored()}
    with planning():
        planned = plans(config, local)
    carry_out(planned, out, config, local, cluster, verdict)


@app.command()
@grouped
def audit(
    target: Target,
    data: DataOptions,
    threat: ThreatOptions,
    form: FormOptions,
    execution: Execution,
    verdict: Verdict,
    budget: Annotated[
        str, typer.Option("--budget", help="quick, standard, thorough, or seconds for each example: 2s.")
    ] = "standard",
    out: Out = Path("runs/audit"),
    seed: Seed = 0,
) -> None:
    """Probe any model, build the attack that suits its gradients, and report the robust accuracy.

    Example: [bold]unmask audit my_model.py:build --data mnist --eps 0.3 --out runs/audit[/bold]
    """
    from unmask.cli.progress import planning

    verdict.threshold()
    with planning("load torch"):
        data, threat = of_case(target, data, threat)
        from unmask.auditing.question import plans
        from unmask.evaluation.runner import LocalExecutor

    settings = execution.config(strict=False, form=form.form(), size=data.size, compile=verdict.compile)
    cluster = execution.cluster(settings)
    if execution.gpus_per_job:  # what is planned here must be what the workers find
        settings = replace(settings, device="cuda")
    local = LocalExecutor(settings)
    config = {"command": "audit", "target": target, **data.config, "seed": seed, "threat": threat.config}
    show_data(local, data)
    config |= {"options": {"budget": budget}, "form": settings.form.stored()}
    if cluster:
        cluster.ready = partial(plans, config)
    with planning():
        planned = plans(config, local)
    carry_out(planned, out, config, local, cluster, verdict)


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
        raise UnmaskError(f"{name} has no weights of its own", other)
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
        raise UnmaskError(f"nothing to list under {what!r}; there are: {', '.join(TOPICS)}")
    entries = TOPICS[what]()
    width = max(map(len, entries))
    for name, about in entries.items():
        say(f"{name:{width}}  {about}")
