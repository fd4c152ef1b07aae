"""What PGD costs beside its bare forward and backward passes, and how long it takes beside other libraries' PGD.

Everything is timed in one process, in rounds, so that whatever slows the machine down slows all alike; what
counts are ratios within a round, of which the median is printed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import PEERS, installed
from unmask.allocator import keep_freed_memory
from unmask.attacks.problem import Problem
from unmask.attacks.settings import pgd
from unmask.cases import find_case
from unmask.cases.recipes import ClassifierTraining
from unmask.data import DataError, Dataset, load
from unmask.judging import Judge
from unmask.randomness import stream
from unmask.threats import Threat
from unmask.trials import Trial, trial
from unmask.victims import lean, steady

__all__ = ["main"]

STEPS = 40
SIZE = 2.5 / STEPS  # of a step, as a share of eps
LIMITS = {"plain": 0.25, "madry": 0.6}  # of our time, as a share of the fastest peer's
OVERHEAD = 1.05


@dataclass(frozen=True)
class Subject:
    """A network to attack, with frozen parameters, and the images."""

    name: str
    model: nn.Module
    data: Dataset
    threat: Threat

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        return self.data.batch()

    def judge(self) -> Judge:
        return Judge(self.model, self.threat)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--weights", type=Path, help="folder of trained weights (default: those that ship)")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    options = parser.parse_args()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    print(f"bfloat16 matrix products: {_bfloat16_speed():.1f} times as fast as float32\n")
    data = _data(options.images)
    for kind in LIMITS:
        subject = _subject(f"{kind}-{data.name}", data, options.weights)
        overhead(subject, options.rounds)
        speed(subject, options.rounds, LIMITS[kind])


def overhead(subject: Subject, rounds: int) -> None:
    """PGD without early stopping in float32, over as many bare forward and backward passes."""
    model, (x, y) = lean(subject.model), subject.batch
    keys = stream(0, torch.arange(len(x)), "benchmark")
    problem = Problem(steady(model), x, y, subject.threat, keys, _nobody)
    attack = pgd(STEPS, size=SIZE, early_stop=False)
    judge = subject.judge()

    def bare() -> None:
        for _ in range(STEPS):
            z = x.detach().requires_grad_(True)
            torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    times = timed(
        {
            "bare passes": bare,
            "unmask": lambda: attack(problem),
            "of it: the last point's value": forward,
            "besides: the judge's verdict": lambda: judge.verdict(x, x, y, keys),
        },
        rounds,
    )
    print(f"{subject.name}: PGD-{STEPS} on {len(x)} images, float32, no early stopping (at most {OVERHEAD})")
    for name in times:
        print(f"  {name:32}{median(times[name]):8.3f} s {ratio(times, name, 'bare passes'):8.3f}")
    print()


def speed(subject: Subject, rounds: int, limit: float) -> None:
    """PGD with early stopping, by gradients in float32 and in bfloat16, beside other libraries; all judged alike."""
    x, y = subject.batch
    eps, judge = subject.threat.eps, subject.judge()

    def ours(low_precision: bool) -> Trial:
        """The whole of it: screening, attack and verdicts."""
        return trial(judge, subject.model, pgd(STEPS, size=SIZE), x, y, low_precision=low_precision)

    theirs = {name: peer(subject.model, x, y, eps, STEPS, SIZE * eps) for name, peer in installed().items()}
    attacks: dict[str, Callable[[], Tensor]] = {
        "unmask, float32": lambda: ours(False).x_adv,
        "unmask, bfloat16 where it pays": lambda: ours(True).x_adv,
        **theirs,
    }
    times = timed(attacks, rounds)
    fastest = min(theirs or attacks, key=lambda name: median(times[name]))
    print(f"{subject.name}: PGD-{STEPS} on {len(x)} images with early stopping (at most {limit} of {fastest})")
    for name, attack in attacks.items():
        robust = judge.verdict(attack(), x, y, stream(0, torch.arange(len(x)), "score")).robust.mean()
        print(f"  {name:32}{median(times[name]):8.3f} s {ratio(times, name, fastest):8.3f} {robust:12.2%} robust")
    print(f"  unmask takes {ours(False).passes.backwards / (STEPS * len(x)):.2f} of the gradients")
    if missing := PEERS.keys() - theirs.keys():
        print(f"  not installed: {', '.join(sorted(missing))}")
    print()


def timed(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each task in each round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            times[name].append(time.perf_counter() - started)
    return {name: seconds[1:] for name, seconds in times.items()}


def ratio(times: Mapping[str, list[float]], name: str, base: str) -> float:
    """The median over the rounds of one task's time over another's."""
    return median(a / b for a, b in zip(times[name], times[base], strict=True))


def _data(n: int) -> Dataset:
    try:
        return load("mnist", n=n)
    except DataError as error:
        print(f"{error}; digits stand in\n")
        return load("digits", n=n)


def _subject(name: str, data: Dataset, weights: Path | None) -> Subject:
    case = find_case(name)
    try:
        model = case.load(weights)
    except ValueError as error:
        print(f"{error}; a network trained for one epoch stands in")
        model = case.build()
        assert isinstance(case.train, ClassifierTraining)
        short = replace(case.train, recipe=replace(case.train.recipe, epochs=1))
        with tempfile.TemporaryDirectory() as folder:
            for line in short(model, Path(folder), seed=0, device="cpu"):
                print(f"  training accuracy {line['accuracy']:.1%}, {line['seconds']:.0f} s")
    return Subject(name, model.eval().requires_grad_(False), data, case.threat)


def _bfloat16_speed() -> float:
    single = torch.rand(1024, 1024)
    half = single.bfloat16()
    times = timed({"float32": lambda: single @ single, "bfloat16": lambda: half @ half}, 9)
    return ratio(times, "float32", "bfloat16")


def _nobody(rows: Tensor, x_adv: Tensor, when: int) -> Tensor:
    raise AssertionError("without early stopping the judge is not asked")


if __name__ == "__main__":
    main()
