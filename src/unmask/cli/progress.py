"""What is shown while a run works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic  # by this name: an audit replaces the clocks of ``time`` for a while

from unmask.cli.console import err, warn
from unmask.kinds import Role
from unmask.progress import Level, on_progress
from unmask.records import Job, Record

__all__ = ["planning", "progress"]


_FIRST, _EVERY = 1.0, 10.0
"""Seconds before the first line, and between two, where stderr is no terminal: an error at once is the only line."""


@contextmanager
def progress(jobs: Sequence[Job]) -> Iterator[Callable[[Record, bool], None]]:
    """On a terminal a bar with accuracy so far, time left and the loops that run.

    Elsewhere a line for each attack that is done, and every 10 seconds one with the loops that run.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("examples, left"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[within]}", style="dim"),
    )
    total = {_label(job): 0 for job in jobs}
    for job in jobs:
        total[_label(job)] += job.stop - job.start
    scores: dict[str, list[float]] = {label: [] for label in total}
    everything = sum(total.values())
    with Progress(*columns, console=err, disable=not err.is_terminal, speed_estimate_period=86400) as bar:
        task = bar.add_task("starting", total=everything, within="")

        def show(record: Record, stored: bool) -> None:
            label = _label(record.job)
            scores[label] += [example.robust for example in record.examples]
            line = f"{label} {100 * sum(scores[label]) / len(scores[label]):.1f} %"
            done = sum(map(len, scores.values()))
            if not stored or done == everything:  # at once: what was stored says nothing of the time left
                bar.update(task, completed=done, description=line, within="")
            if not stored and bar.disable and len(scores[label]) == total[label]:
                err.print(
                    f"{line} ({total[label]} examples; {done} of {everything} verdicts of the run)",
                    highlight=False,
                    soft_wrap=True,
                )

        def within(levels: tuple[Level, ...]) -> None:
            bar.update(task, within=_running(levels))

        if bar.disable:
            with _lines("attack"):
                yield show
        else:
            with on_progress(within):
                yield show


@contextmanager
def planning(first: str = "load the model") -> Iterator[None]:
    """On a terminal a line that names the step of an audit that runs, ``first`` before, and the loops within it.

    Elsewhere such a line after a second, and every 10 seconds.
    """
    if not err.is_terminal:
        with _lines(first):
            yield
        return
    with err.status(first) as status, on_progress(lambda levels: status.update(_running(levels))):
        yield


@contextmanager
def _lines(at_first: str) -> Iterator[None]:
    """After a second, and every 10 seconds, a line with the loops that run and the time since the beginning."""
    began, done, now = monotonic(), Event(), [at_first]

    def print_lines() -> None:
        wait = _FIRST
        while not done.wait(wait):
            warn(f"{now[0]} ({monotonic() - began:.0f} s)")
            wait = _EVERY

    def running(levels: tuple[Level, ...]) -> None:
        now[0] = _running(levels)

    thread = Thread(target=print_lines, daemon=True)
    with on_progress(running):
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _running(levels: tuple[Level, ...]) -> str:
    return ", ".join(f"{level.what} {level.done + 1} of {level.total}" for level in levels)


def _label(job: Job) -> str:
    """What a reader calls the attack that a job is a part of."""
    at = f" at {job.threat.eps:.4g}" if job.role == Role.EPS else ""
    at = f" at strength {job.options['strength']:g}" if job.role == Role.STRENGTH else at
    return f"{job.target.removeprefix('case:')} {job.options.get('control', job.attack)}{at}"
