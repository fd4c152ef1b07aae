"""What the commands that attack have in common: where jobs run, and what comes after them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unmask.cli.console import err, fail, say
from unmask.cli.console import out as console

if TYPE_CHECKING:
    from unmask.cli.threshold import Threshold
    from unmask.evaluation.plan import Plan
    from unmask.evaluation.ray_executor import RayExecutor
    from unmask.evaluation.runner import LocalExecutor
    from unmask.models.forms import ModelForm

__all__ = ["carry_out", "cluster_of", "form_of", "show_data"]

# Each function imports what it needs, so that help does not wait for torch.


def cluster_of(executor: str, address: str | None, gpus_per_job: float, workers: int | None) -> RayExecutor | None:
    """What ``--executor`` names; None for this process."""
    if executor not in ("local", "ray"):
        raise ValueError(f"no executor {executor!r}; executors: local, ray")
    if executor == "local":
        if address or gpus_per_job or workers:
            raise ValueError("--ray-address, --gpus-per-job and --ray-workers are for --executor ray")
        return None
    from unmask.evaluation.ray_executor import RayExecutor

    return RayExecutor(address=address, gpus_per_job=gpus_per_job, workers=workers)


def form_of(layout: str, pixel_range: float, output: str | None, reject_class: int | None) -> ModelForm:
    """What the options say of a model's input and output."""
    from unmask.models.forms import ModelForm

    if layout not in ("nchw", "nhwc"):
        raise ValueError(f"no layout {layout!r}; layouts: nchw, which is (B, C, H, W), and nhwc, which is (B, H, W, C)")
    if not 0 < pixel_range < float("inf"):
        raise ValueError(f"--range {pixel_range:g}: give the value that the model takes for white, such as 255")
    return ModelForm(layout == "nhwc", pixel_range, output, reject_class)


def show_data(local: LocalExecutor, data: str, n: int) -> dict[str, int]:
    """Print a line on the user's own data; what a configuration says of their size."""
    from unmask.data import names

    if data not in names():
        say(str(local.dataset(data, n)))
    return {} if local.size is None else {"size": local.size}


def carry_out(
    plans: Sequence[Plan],
    out: Path,
    config: dict[str, Any],
    about: dict[str, Any],
    local: LocalExecutor,
    threshold: Threshold | None,
    stop_when: str | None,
    cluster: RayExecutor | None,
    *,
    compile: bool = False,
) -> None:
    """Do what is left to do, render, and compare the accuracy with the thresholds."""
    from unmask.cli.progress import progress
    from unmask.evaluation.environment import environment
    from unmask.evaluation.runner import run
    from unmask.evaluation.store import Store
    from unmask.models.compiling import Compiler
    from unmask.report import summary, write
    from unmask.report.run_folder import RunFolder
    from unmask.report.table import table
    from unmask.statistics import StopRule

    rule = None if stop_when is None else StopRule.parse(stop_when)
    config |= {"stop_when": str(rule)} if rule else {}
    if compile:  # a run cannot go on without it, nor another with it
        config |= {"compile": True}
        local.compiler = Compiler(partial(err.print, highlight=False, soft_wrap=True))
    config = {**config, "weights": local.weights and str(local.weights.resolve())}
    about = {
        **{name: config[name] for name in ("command", "n", "seed")},
        **about,
        "cases": [p.case_info for p in plans],
    }
    jobs = [job for plan in plans for job in plan.jobs]
    settled = local.fingerprints(jobs)
    with Store.open(out, config, {**about, **environment()}, jobs, settled) as store, progress(jobs) as show:
        if cluster is None:
            run(jobs, store, local, show, rule)
        else:
            cluster.batch, cluster.weights = local.batch, local.weights
            cluster.strict, cluster.form, cluster.compile = local.strict, local.form, compile
            cluster.size = local.size
            cluster.device = "cuda" if cluster.gpus_per_job else local.device
            with cluster:
                run(jobs, store, cluster, show, rule)
    path = write(out)
    console.print(summary(out))
    say(f"Report: {path.resolve()}")
    if threshold is not None and (failures := threshold.failures(table(RunFolder.read(out)))):
        raise typer.Exit(fail("; ".join(failures), 1))
