"""What the commands that attack have in common: what comes after the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unmask.cli.console import err, fail, say
from unmask.cli.console import out as console
from unmask.cli.options import DataOptions, Verdict

if TYPE_CHECKING:
    from unmask.evaluation.plan import Plan
    from unmask.evaluation.ray_executor import RayExecutor
    from unmask.evaluation.runner import LocalExecutor

__all__ = ["carry_out", "show_data"]

# Each function imports what it needs, so that help does not wait for torch.


def show_data(local: LocalExecutor, options: DataOptions) -> None:
    """Print a line on the user's own data."""
    from unmask.data import names

    if options.data not in names():
        say(str(local.dataset(options.data, options.n)))


def carry_out(
    plans: Sequence[Plan],
    out: Path,
    config: Mapping[str, Any],
    local: LocalExecutor,
    cluster: RayExecutor | None,
    verdict: Verdict,
    suite: str | None = None,
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

    threshold = verdict.threshold()
    rule = None if verdict.stop_when is None else StopRule.parse(verdict.stop_when)
    weights = local.config.weights
    config = {**config, "weights": weights and str(weights.resolve())}
    config |= {"stop_when": str(rule)} if rule else {}
    if verdict.compile:  # a run cannot go on without it, nor another with it
        config |= {"compile": True}
        local.compiler = Compiler(partial(err.print, highlight=False, soft_wrap=True))
    about = {name: config[name] for name in ("command", "n", "seed")}
    about |= {"suite": suite, "cases": [plan.case_info for plan in plans], **environment()}
    about |= {"planning_seconds": {name: spent for plan in plans for name, spent in plan.seconds.items()}}
    jobs = [job for plan in plans for job in plan.jobs]
    with Store.open(out, config, about, jobs, local.fingerprints(jobs)) as store, progress(jobs) as show:
        if cluster is None:
            run(jobs, store, local, show, rule)
        else:
            with cluster:
                run(jobs, store, cluster, show, rule)
    path = write(out)
    console.print(summary(out))
    say(f"Report: {path.resolve()}")
    if threshold is not None and (failures := threshold.failures(table(RunFolder.read(out)))):
        raise typer.Exit(fail("; ".join(failures), 1))
