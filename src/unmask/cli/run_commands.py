"""The commands on finished runs: verify, compare, run again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import randrange
from typing import TYPE_CHECKING, Annotated

import typer

from unmask.cli.commands import app
from unmask.cli.console import say
from unmask.cli.option_groups import grouped
from unmask.cli.options import Execution, Local, Run
from unmask.cli.rerun import asked, clocked, do_again, local_of, on_the_threads_of
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.report.compare import PairedComparison

__all__ = ["app", "compare", "rerun", "sample_size", "verify"]


@app.command()
@grouped
def verify(
    run: Run,
    local: Local,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another run of the same cases, for a comparison.")
    ] = None,
    examine: Annotated[
        bool,
        typer.Option(help="Probe an audited model again, which takes as long as at the start of the audit."),
    ] = True,
    attack: Annotated[
        int, typer.Option("--attack", min=0, metavar="K", help="Attack K examples again, by each attack of the run.")
    ] = 0,
    attack_seed: Annotated[
        int | None,
        typer.Option("--attack-seed", help="Seed that chooses the K examples; default: random, printed."),
    ] = None,
) -> None:
    """Plan a run again, judge every stored adversarial example again on the original model, compute every figure again.

    Exit with 1 if a job, verdict, finding or figure differs, anything that the run rests on was changed, or an attack
    anew breaks an example that the run says is robust.

    Example: [bold]unmask verify runs/demo --attack 8[/bold]
    """
    from unmask.auditing.question import plans
    from unmask.cli.progress import planning
    from unmask.evaluation.verifying.attack_again import Sample
    from unmask.evaluation.verifying.verify import verify
    from unmask.report.compare import compare_runs as held_against
    from unmask.run_files import read_run

    if attack and not examine and read_run(run).config.get("command") == "audit":
        raise UnmaskError("the attacks of an audit follow from the diagnosis", "leave out --attack or --no-examine")
    config = asked(run)
    seed = randrange(1 << 31) if attack_seed is None else attack_seed
    sample = Sample(attack, seed, clocked(config)) if attack else None
    executor = local_of(config, local)
    with on_the_threads_of(run):
        with planning():
            planned = plans(config, executor) if examine or config["command"] != "audit" else None
        checks = []
        for check in verify(run, executor, planned, sample):
            checks.append(check)
            if check.problem:
                say(f"FAILED {check.record}: {check.problem}")
    failed = sum(check.problem is not None for check in checks)
    examples = sum(check.examples for check in checks)
    records = sum(check.examples > 0 for check in checks)
    result = f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks passed"
    say(f"{records} records, {examples} adversarial examples judged again: {result}.")
    if sample:
        say(f"{sum(check.attacked for check in checks)} examples attacked again, chosen by --attack-seed {seed}.")
    if against:
        _show(held_against(run, against))
    if failed:
        raise typer.Exit(1)


@app.command()
@grouped
def rerun(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="New folder; the same command continues it.")],
    execution: Execution,
) -> None:
    """Do a run again from its configuration, and compare; exit with 1 if jobs, findings, attacks or verdicts differ.

    What an attack leaves that had a budget in seconds depends on the machine: it is compared, and may differ.

    Example: [bold]unmask rerun runs/demo --out runs/again[/bold]
    """
    from unmask.evaluation.order import with_later
    from unmask.report.compare import compare_runs, count_identical, differing
    from unmask.run_files import read_run

    before, config = read_run(run), asked(run)
    if out.resolve() == run.resolve():
        raise UnmaskError(f"{out} is the run itself", "give --out a new folder")
    with on_the_threads_of(run):
        do_again(config, out, execution)
    now = read_run(out)
    for name in ("versions", "hardware", "revision"):
        if before.description.get(name) != now.description.get(name):
            say(f"other {name}: {before.description.get(name)}, now {now.description.get(name)}")
    alike, total = count_identical(run, out)
    say(f"{alike} of {total} records are the same to the bit.")
    timed = clocked(config)
    by_clock = with_later(timed, now.jobs)
    others = differing(run, out, by_clock)
    for line in others:
        say(f"FAILED {line}")
    pairs = [pair for pair in compare_runs(run, out) if pair.changed]
    _show(pairs)
    if any(pair.attack in by_clock for pair in pairs):
        later = ", ".join(one for one in by_clock if one not in timed)
        rest = f", and so do those of the attacks on what it leaves: {later}" if later else ""
        say(f"{', '.join(timed)}: its budget was in seconds, so its result depends on the machine{rest}.")
    if others or any(pair.attack not in by_clock for pair in pairs) or not total:
        raise typer.Exit(1)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Folder of a run; may be the same.", show_default=False)],
    case: Annotated[str | None, typer.Option("--case", help="Case of the first run, if it has several.")] = None,
    with_: Annotated[str | None, typer.Option("--with", help="Case of the second run; default --case.")] = None,
) -> None:
    """Compare two defenses on the same images: exact McNemar test, interval of the difference.

    Example: [bold]unmask compare runs/a runs/b[/bold]
    """
    from unmask.report.compare import compare, compared, unreliable

    cases = (case, with_ or case)
    pairs = compare(first, second, cases)
    for line in compared(first, second, cases):
        say(line)
    _show(pairs)
    for line in unreliable(first, second, cases):
        say(line)


@app.command()
def sample_size(
    accuracy: Annotated[float, typer.Option("--accuracy", help="Expected accuracy, as a share.")],
    width: Annotated[float, typer.Option("--width", help="Of the 95 % interval, as a share.")],
) -> None:
    """Print the number of examples for an interval of a given width.

    Example: [bold]unmask sample-size --accuracy 0.05 --width 0.02[/bold]
    """
    from unmask import statistics

    say(f"--n {statistics.sample_size(accuracy, width)}")
    say(f"with --stop-when: about {statistics.sample_size(accuracy, width, anytime=True)}")


def _show(pairs: Iterable[PairedComparison]) -> None:
    for pair in pairs:
        d = pair.difference
        say(
            f"{pair.what}: {100 * pair.first.value:.1f} % and {100 * pair.second.value:.1f} %, difference "
            f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}] percentage points, p = {d.p:.2g}; "
            f"{pair.changed} of {d.n} examples differ"
        )
