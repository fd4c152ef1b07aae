"""What a run costs beside the model's own work: with examples, with workers, and by the job; what more GPUs would give.

Measures on this machine, with a digits case: seconds against examples (the slope is the work, the rest is start-up),
one process against workers of Ray, and what a job costs that has next to nothing to do. From these overheads, and
the seconds that a GPU needs for an image, it works out how long 1, 8 and 64 GPUs would take. Seconds of an image are a
question to the GPU at hand, so that they are an argument.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from unmask.cases import find_case
from unmask.evaluation.plan import SHARD, plan_case
from unmask.evaluation.ray_executor import RayExecutor
from unmask.evaluation.runner import Executor, LocalExecutor, run
from unmask.evaluation.store import Store
from unmask.records import Job

__all__ = ["main"]

CASE = "thermometer-digits"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument(
        "--seconds-per-image", type=float, help="of all attacks on a GPU; leave out for no extrapolation"
    )
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--start", type=float, default=60.0, help="seconds until a worker has its model and data")
    asked = parser.parse_args()
    local = LocalExecutor()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {CASE}\n")
    print("| examples | where | seconds | ms an example |\n|---|---|---|---|")
    for n in asked.examples:
        row(n, "one process, 1 thread", timed(jobs(local, n), local))
    most = max(asked.examples)
    for workers in asked.workers:
        if workers > 1:
            torch.set_num_threads(workers)
            row(most, f"one process, {workers} threads", timed(jobs(local, most), local))
            torch.set_num_threads(1)
        with RayExecutor(workers=workers) as cluster:
            timed(jobs(local, SHARD), cluster)  # workers load what they need
            row(most, f"ray, {workers} of 1 thread", timed(jobs(local, most), cluster))
    empty = per_job(local, [job for job in jobs(local, 64, 1) if job.role == "clean"])
    with RayExecutor(workers=1) as cluster:
        timed(jobs(local, SHARD), cluster)
        sent = per_job(cluster, [job for job in jobs(local, 64, 1) if job.role == "clean"])
    print(f"\nA job with one image and no attack: {1000 * empty:.1f} ms here, {1000 * sent:.1f} ms through ray.")
    if asked.seconds_per_image:
        extrapolate(asked.images, asked.seconds_per_image, sent, asked.start)


def row(n: int, where: str, took: float) -> None:
    print(f"| {n} | {where} | {took:.2f} | {1000 * took / n:.1f} |", flush=True)


def jobs(local: LocalExecutor, n: int, block: int = SHARD) -> list[Job]:
    """The main jobs of the case, in blocks of ``block`` examples."""
    case = find_case(CASE)
    planned = plan_case(case, local.dataset(case.data, n), n, 0, sweep=False).jobs
    if block == SHARD:
        return list(planned)
    first = {(job.attack, job.role): job for job in planned}.values()
    cut = [(start, min(start + block, n)) for start in range(0, n, block)]
    return [
        Job(job.target, job.data, job.attack, job.threat, job.seed, start, stop, job.role, job.options)
        for job in first
        for start, stop in cut
    ]


def timed(some: Sequence[Job], executor: Executor) -> float:
    """Seconds for a new run of these jobs, with all that is written to the disk."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "run", {}, {}, some) as store:
        began = time.monotonic()
        run(some, store, executor, lambda record, stored: None)
        return time.monotonic() - began


def per_job(executor: Executor, some: Sequence[Job]) -> float:
    """Seconds a job."""
    return timed(some, executor) / len(some)


def extrapolate(images: int, seconds: float, overhead: float, start: float) -> None:
    """Blocks go to GPUs evenly; the driver stores one result after the other while they work."""
    blocks = -(-images // SHARD)
    alone = start + blocks * (SHARD * seconds + overhead)
    job = f"{blocks} jobs of {SHARD}, {1000 * overhead:.0f} ms a job"
    print(f"\n{images} images of {seconds:g} s in {job}, {start:g} s to load:")
    print("\n| GPUs | hours | times as fast as one |\n|---|---|---|")
    for gpus in (1, 8, 64):
        rounds = -(-blocks // gpus)
        took = start + max(rounds * SHARD * seconds + overhead, blocks * overhead)
        print(f"| {gpus} | {took / 3600:.2f} | {alone / took:.1f} |")


if __name__ == "__main__":
    main()
