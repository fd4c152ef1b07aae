"""What is timed: networks, images, and tasks in rounds.

Everything is timed in one process, in rounds, so that whatever slows the machine down slows all alike; what
counts are ratios within a round, of which the median is printed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from unmask.cases import find_case
from unmask.cases.recipes import ClassifierTraining
from unmask.data import DataError, Dataset, load
from unmask.judging import Judge
from unmask.models.allocator import keep_freed_memory
from unmask.threats import Threat

__all__ = ["Subject", "arguments", "ratio", "subjects", "timed"]


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


def arguments(about: str | None) -> argparse.ArgumentParser:
    """What every comparison asks on its command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--weights", type=Path, help="folder of trained weights (default: those that ship)")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    return parser


def subjects(options: argparse.Namespace) -> Iterator[Subject]:
    """The plain and the adversarially trained network, after a line on the machine."""
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}\n")
    data = _data(options.images)
    for kind in ("plain", "madry"):
        yield _subject(f"{kind}-{data.name}", data, options.weights)


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
